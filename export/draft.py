"""Makes a bundle's table of draft tokens from text that the model writes itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from issun.export.options import Progress
from issun.runtime.decoding.answer import Completion
from issun.runtime.decoding.draft_table import write_draft_table
from issun.runtime.manifest import DRAFT_NAME
from issun.runtime.model import Model

_TOKENS, _ID_BYTES = 20_000, 4  # to write
_SLOTS = 16
_MIN_MESSAGE, _MAX_MESSAGE = 8, 60  # characters


def write_drafts(folder: Path, text: str, progress: Progress) -> None:
    """Let the bundle in `folder` answer the sentences of `text`, and write its table there.

    `progress` is called with the bytes of the ids.
    """
    sentences = [s for s in re.findall(r"[^。?？!！\n]+[。?？!！\n]?", text) if s.strip()]
    fitting = [s for s in sentences if _MIN_MESSAGE <= len(s) <= _MAX_MESSAGE] or sentences[:1]
    texts: list[tuple[list[int], list[int]]] = []
    done = seed = 0
    with Model.load(folder, keep_packed=False) as model:

        def record(index: int, answer: Completion) -> None:
            nonlocal done
            likeliest = [next(iter(logprob.top)) for logprob in answer.logprobs]
            texts.append(([prompts[index][-1], *answer.ids], likeliest[1:]))
            done += len(likeliest)
            progress("draft", _ID_BYTES * min(done, _TOKENS), _ID_BYTES * _TOKENS)

        prompts = [model.prompt(sentence) for sentence in fitting]
        while done < _TOKENS:
            params = [
                replace(model.default_params, seed=seed + i, logprobs=1)
                for i in range(len(prompts))
            ]
            model.generate_many(prompts, params, slots=_SLOTS, on_complete=record)
            seed += len(prompts)
    write_draft_table(folder / DRAFT_NAME, texts)
