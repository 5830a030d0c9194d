"""Renders a bundle's Jinja template in a child process, since a template is a program."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from issun.runtime.child import ChildDiedError, ChildProcess, ChildTimeoutError
from issun.runtime.errors import TemplateError
from issun.runtime.manifest import JinjaTemplate

MAX_SECONDS = 5.0  # for one prompt
_START_SECONDS = 30.0  # for the process to start
# Characters of a prompt: a constant, plus a multiple of the characters of the messages.
_MAX_LENGTH, _MAX_GROWTH = 500_000, 4
_PROGRAM = Path(__file__).with_name("jinja_child.py")

Message = dict[str, str]  # `role` and `content`


class Renderer:
    """Renders messages as text with limits on time, memory and length; for any thread.

    Python cannot stop a template that runs in the same process, and the sandbox does not limit how
    long it runs. The process starts with the first prompt.
    """

    def __init__(self, template: JinjaTemplate) -> None:
        self._template = template
        self._lock = threading.Lock()
        self._child = ChildProcess(_PROGRAM)
        weakref.finalize(self, self._child.close)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt for `messages`; raises TemplateError, and BusyError after `close`."""
        values: dict[str, Any] = {
            "tools": None,
            "documents": None,
            **self._template.variables,
            "messages": messages,
            "add_generation_prompt": True,
        }
        length = sum(len(message["content"]) for message in messages)
        request = {
            "source": self._template.source,
            "values": values,
            "seconds": MAX_SECONDS,
            "most": _MAX_LENGTH + _MAX_GROWTH * length,
        }
        answer = self._ask(request)
        if "error" in answer:
            raise self._failed(answer["error"])
        return answer["text"]

    def close(self) -> None:
        """End the process for good."""
        self._child.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, str]:
        if find_spec("jinja2") is None:
            raise TemplateError(
                'The prompt template {name} needs {module}: pip install "issun[models]"',
                name=self._template.name,
                module="jinja2",
            )
        try:
            with self._lock:
                if self._child.ensure_running():
                    self._child.request(None, _START_SECONDS)
                return self._child.request(request, MAX_SECONDS)
        except ChildTimeoutError as error:
            raise self._failed(f"it takes more than {error.seconds:g} s") from error
        except ChildDiedError as error:
            raise self._failed("its process ended") from error

    def _failed(self, reason: str) -> TemplateError:
        return TemplateError(
            "The prompt template {name} failed: {reason}",
            name=self._template.name,
            reason=" ".join(reason.split()),
        )
