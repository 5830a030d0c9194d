"""A conversation: a role, turns, and a KV cache that is kept between turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from issun.runtime.decoding.answer import Completion, Stream
from issun.runtime.decoding.drafts import Predictions
from issun.runtime.decoding.kv_cache import Cache, KVCache
from issun.runtime.decoding.kv_file import read_kv, write_kv
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import BusyError, ConversationError, OutOfMemoryError, ParameterError
from issun.runtime.files import reason_of, user_path
from issun.runtime.model import Model
from issun.runtime.saved import SavedConversation, kv_path, read_conversation, write_conversation
from issun.runtime.text.prefix import common_prefix
from issun.runtime.text.prompt import FittedPrompt
from issun.runtime.text.turn import Turn


class Conversation:
    """A conversation with a model in its bundle's prompt format.

    The KV cache is kept between turns, and only the changed part of the prompt is computed. When
    the context is full, the oldest turns are dropped from the prompt, several at once so that this
    is rare; the role stays. `Completion.dropped_turns` counts them, and `turns` still has them.
    `role` is a list of lines in the template's format (`User:...`, `Assistant:...`), or one text,
    which is wrapped in the template's system lines. For a chat template in Jinja the lines of the
    list, like the one text, are the system message. `adapter` names one of the model's adapters.
    """

    def __init__(
        self,
        model: Model,
        role: Sequence[str] | str = (),
        *,
        params: SamplingParams | None = None,
        adapter: str | None = None,
    ) -> None:
        model.check_adapter(adapter)
        self.model, self.adapter = model, adapter
        self.role = self._role_lines(role)
        self.turns: list[Turn] = []
        self.params = params or model.default_params
        self._cache: Cache = model.new_cache()
        self._predictions = Predictions(self.model.draft_table)
        self._partial: _PartialAnswer | None = None
        self._dropped = 0  # turns dropped from the latest prompt

    def reply(self, message: str, params: SamplingParams | None = None) -> Completion:
        """Answer `message` and add both to the turns; raises as `stream` does."""
        return self.stream(message, params).finish()

    def stream(self, message: str, params: SamplingParams | None = None) -> Stream:
        """Stream the answer to `message`; the turn is added at the end, or on `cancel()`.

        Raises ParameterError for an empty message, ContextError if role and message do not fit, and
        BusyError while the model is in use.
        """
        return self._ask(message, self.turns, params)

    def read_ahead(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Prefill the prefix of the next prompt: the role and all turns.

        Call it in a separate thread while the user reads and types. `stop()` is called before each
        chunk of the prefill, and what was computed until then is kept. Returns the number of tokens
        computed. Raises BusyError while the model is in use, ContextError if the role does not fit.
        """
        # Drop the turns that even the shortest message would drop; a longer one may drop more.
        self._dropped = self._fit(self.turns, "あ", self.params).dropped_turns
        known = self.model.prompts.before_message(self.role, self.turns, dropped=self._dropped)
        return self.model.read(self._cache, known, stop, adapter=self.adapter)

    def resume(self, params: SamplingParams | None = None) -> Stream:
        """Continue the last answer, which ended with `length` or was cancelled.

        The segments are the added text. Raises ConversationError if there is no answer to continue,
        ContextError if the context is full.
        """
        if self._partial is None:
            raise ConversationError("There is no truncated answer to continue.")
        return self._start(self._partial, params or self.params)

    def undo(self) -> Turn:
        """Remove the last turn and return it; raises ConversationError if there is none."""
        self.model.check_free()
        if not self.turns:
            raise ConversationError("There is no turn to undo.")
        self._partial = None
        return self.turns.pop()

    def retry(self, params: SamplingParams | None = None) -> Stream:
        """Answer the last message again; the old answer stays until the new one has ended."""
        if not self.turns:
            raise ConversationError("There is no turn to answer again.")
        return self._ask(self.turns[-1].message, self.turns[:-1], params)

    def reset(self, role: Sequence[str] | str | None = None) -> None:
        """Forget all turns; with `role`, change the role."""
        self.model.check_free()
        lines = self.role if role is None else self._role_lines(role)
        self.turns.clear()
        self._partial, self._dropped = None, 0
        self._predictions = Predictions(self.model.draft_table)
        self.role = lines
        # The next conversation's prompts begin with the role too.
        begin = self.model.prompts.before_message(self.role, [])
        self._cache.keep_common_prefix([*begin, -1])
        self._cache.shrink()

    def save(self, path: str | Path, *, keep_cache: bool = True) -> int:
        """Write role and turns as JSON to a new file that only its owner can read.

        With `keep_cache`, the KV cache is written to a second file, `path` plus `.kv`, so that
        `load` with the same bundle need not compute it again. Per token that is 393 kB for the 1.3
        B shape in float32 and 98 kB in int8. Returns the bytes of that file, or 0 if there is none;
        it is not written while the model is in use. Raises ConversationError if a file exists or
        cannot be written.
        """
        path = user_path(path)
        kv_file = kv_path(path)
        if keep_cache and os.path.lexists(kv_file):
            taken = path if os.path.lexists(path) else kv_file
            raise ConversationError("{path} exists: choose another name.", path=taken)
        write_conversation(path, SavedConversation.of(self.role, self.turns))
        if not keep_cache or not isinstance(self._cache, KVCache):
            return 0
        try:
            with self.model.busy():
                return self._save_cache(self._cache, kv_file)
        except (BusyError, ParameterError):  # in use or closed
            return 0
        except OSError as error:
            raise ConversationError(
                "{path} was written, but not the KV cache {kv_file}: {reason}",
                path=path,
                kv_file=kv_file,
                reason=reason_of(error),
            ) from error

    def _save_cache(self, cache: KVCache, path: Path) -> int:
        """Write the prefix of the next prompt, without turns that were undone."""
        known = self.model.prompts.before_message(self.role, self.turns, dropped=self._dropped)
        shared = common_prefix(cache.ids[0], known)
        if not shared:
            return 0
        owner = self.model.kv_id(cache.adapters[0])
        return write_kv(path, cache, shared, owner, dropped=self._dropped)

    def load(self, path: str | Path) -> None:
        """Replace role and turns by a saved conversation; on ConversationError nothing changes.

        The saved KV cache is loaded too if it is intact and of the same bundle and adapter. Raises
        BusyError while the model is in use.
        """
        path = user_path(path)
        with self.model.busy():
            saved = read_conversation(path)
            self.role = saved.role
            self.turns = [Turn(message, reply) for message, reply in saved.turns]
            self._partial, self._dropped = None, 0
            self._predictions = Predictions(self.model.draft_table)
            if isinstance(self._cache, KVCache) and os.path.isfile(kv_path(path)):  # noqa: PTH113 - unlike Path.is_file, never raises for a long name
                self._cache.choose_adapter(self.adapter)
                owner = self.model.kv_id(self.adapter)
                with suppress(OutOfMemoryError):  # then the next prompt is computed instead
                    held = read_kv(kv_path(path), self._cache, owner)
                    self._dropped = held.dropped if held else 0

    def _role_lines(self, role: Sequence[str] | str) -> list[str]:
        if isinstance(role, str):
            return self.model.prompts.system_lines(role) if role.strip() else []
        return list(role)

    def _ask(self, message: str, earlier: Sequence[Turn], params: SamplingParams | None) -> Stream:
        params = params or self.params
        fitted = self._fit(earlier, message, params)
        partial = _PartialAnswer(turn_index=len(earlier), message=message, prompt=fitted)
        return self._start(partial, params)

    def _fit(self, earlier: Sequence[Turn], message: str, params: SamplingParams) -> FittedPrompt:
        return self.model.prompts.chat(
            self.role,
            earlier,
            message,
            max_new_tokens=params.max_new_tokens,
            dropped=self._dropped,
        )

    def _start(self, partial: _PartialAnswer, params: SamplingParams) -> Stream:
        def record(completion: Completion) -> None:
            if completion.finish_reason == "cancelled" and not completion.ids:
                return  # cancelled before the first token: nothing has changed
            reply = partial.reply + completion.text
            answer = [*partial.answer, *completion.ids]
            self._partial = None  # so that an interrupt here leaves no older answer to continue
            self.turns[partial.turn_index :] = [Turn(partial.message, reply)]
            self._dropped = partial.prompt.dropped_turns
            cut = answer and completion.finish_reason != "stop"
            self._partial = replace(partial, answer=answer, reply=reply) if cut else None

        self.model.check_free()
        # On abandon, keep the part of these ids that the new prompt has not replaced.
        before = [*self._cache.ids[0], -1]
        return self.model.start(
            self._cache,
            partial.prompt.ids,
            params,
            adapter=self.adapter,
            answer=partial.answer,
            predictions=self._predictions,
            dropped_turns=partial.prompt.dropped_turns,
            on_complete=record,
            on_abandon=lambda: self._cache.keep_common_prefix(before),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartialAnswer:
    """An incomplete answer: its index among the turns, the message, the prompt, ids and text."""

    turn_index: int
    message: str
    prompt: FittedPrompt
    answer: list[int] = field(default_factory=list)
    reply: str = ""
