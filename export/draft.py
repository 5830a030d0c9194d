"""Makes a bundle's table of draft tokens from text that the model writes itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np

from issun.export.options import Progress
from issun.runtime.decoding.answer import Completion
from issun.runtime.decoding.draft_table import write_draft_table
from issun.runtime.errors import ParameterError
from issun.runtime.manifest import DRAFT_NAME
from issun.runtime.model import Model

_TOKENS, _ID_BYTES = 20_000, 4  # to write
_SLOTS = 16  # answers that are written together
_MIN_MESSAGE, _MAX_MESSAGE = 8, 60  # characters
# A sentence ends with its mark; a full stop is one only before a space, unlike in 3.5.
_SENTENCE = re.compile(r".+?(?:[。．?？!！]+|\.(?=\s)|$)", re.MULTILINE)


def draft_messages(text: str) -> list[str]:
    """Return the sentences of `text` that the model is to answer, in a random order.

    Raises ParameterError if there are none.
    """
    sentences = (s[:_MAX_MESSAGE].strip() for s in _SENTENCE.findall(text))
    found = [s for s in sentences if len(s) >= _MIN_MESSAGE and re.search(r"\w", s)]
    if not found:
        raise ParameterError(
            "The text for draft tokens has no sentence of {low} characters or more: name another "
            "one with --calibrate.",
            low=_MIN_MESSAGE,
        )
    # The first answers are from all over the text.
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def write_drafts(folder: Path, messages: Sequence[str], progress: Progress) -> None:
    """Let the bundle in `folder` answer `messages`, and write its table there.

    It answers them again and again until it has written enough. `progress` is called with the bytes
    of the ids. Raises ParameterError if no message fits into the context.
    """
    texts: list[tuple[list[int], list[int]]] = []
    done = 0
    with Model.load(folder, keep_packed=False) as model:

        def record(index: int, answer: Completion) -> None:
            nonlocal done
            likeliest = [next(iter(logprob.top)) for logprob in answer.logprobs]
            texts.append(([prompts[index][-1], *answer.ids], likeliest[1:]))
            done += len(likeliest)
            progress("draft", _ID_BYTES * min(done, _TOKENS), _ID_BYTES * _TOKENS)

        most = model.manifest.architecture.n_positions
        fitting = [ids for ids in map(model.prompt, messages) if len(ids) < most]
        if not fitting:
            raise ParameterError(
                "No message for draft tokens fits into the context of {most:,} tokens: export "
                "without --draft.",
                most=most,
            )
        waiting, seeds = cycle(fitting), count()
        while done < _TOKENS:
            prompts = list(islice(waiting, _SLOTS))
            params = [replace(model.default_params, seed=next(seeds), logprobs=1) for _ in prompts]
            model.generate_many(prompts, params, slots=_SLOTS, on_complete=record)
    write_draft_table(folder / DRAFT_NAME, texts)
