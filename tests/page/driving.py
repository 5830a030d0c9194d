"""What the tests of the page do and read, and answers that they make up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def box(page: Any) -> Any:
    return page.get_by_test_id("message-input")


def ask(page: Any, text: str) -> None:
    box(page).fill(text)
    page.get_by_test_id("send").click()


def texts(page: Any, who: str) -> list[str]:
    """The messages of `who` (user, assistant) as the page shows them."""
    found: list[str] = (
        page.get_by_test_id(f"message-{who}").get_by_test_id("message-text").all_inner_texts()
    )
    return found


def wait_for_end(page: Any) -> None:
    page.get_by_test_id("stop").wait_for(state="hidden")
    page.get_by_test_id("regenerate").wait_for()


def answer_with(
    page: Any,
    *parts: str,
    end: str = "stop",
    usage: dict[str, int] | None = None,
    speed: float = 0.0,
) -> None:
    """Let every question be answered with `parts` as a stream, in place of the model."""
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]}
        for part in parts
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
    if usage:
        chunks.append({"choices": [], "usage": usage, "issun": {"tokens_per_second": speed}})
    respond(page, chunks)


def respond(page: Any, chunks: Sequence[object]) -> None:
    """Let every question be answered with `chunks`."""
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            status=200, content_type="text/event-stream", body=f"{events}data: [DONE]\n\n"
        ),
    )


def take_over(page: Any) -> None:
    """Let the model answer again."""
    page.unroute("**/v1/chat/completions")
