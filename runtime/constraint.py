"""Answers that follow a JSON schema, a regular expression, or are one of some choices.

A grammar of llguidance says after each token which may come next; the sampler puts the others out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from issun.runtime.errors import ParameterError, SamplingError
from issun.runtime.filters import Vector
from issun.runtime.tokenizer import Tokenizer

_MOST_BYTES = 64 << 10  # of a schema, a pattern, or all choices together
_MOST_SECONDS = 5.0  # to compile it
_COMPILE = "import sys; from llguidance import LLMatcher as M; M.validate_grammar(sys.stdin.read())"


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar over one model's vocabulary; every answer begins it anew."""

    grammar: str
    vocabulary: Any  # llguidance's tokenizer
    compiled: Any = field(compare=False, repr=False)  # a matcher that has read nothing

    def start(self) -> Matcher:
        """What follows one answer."""
        return Matcher(self.compiled.deep_copy(), self.vocabulary.vocab_size)


class Matcher:
    """The state of one answer in its grammar."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        words = -(-vocab_size // 32)
        self._mask = np.zeros(words, np.int32)
        self._read = 0  # tokens of the answer that the grammar knows

    def allow(self, logits: Vector, answer: Sequence[int]) -> Vector:
        """Put out every id that may not follow `answer`; raises SamplingError when none may."""
        for token in answer[self._read :]:
            self._matcher.consume_token(token)
        self._read = len(answer)
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if self._matcher.is_error():
            raise SamplingError(
                "The answer cannot go on as it was constrained: {reason}",
                reason=_one_line(self._matcher.get_error()),
            )
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: len(logits)]
        return np.where(allowed.astype(bool), logits, np.float32(-np.inf))


class Constraints:
    """Makes constraints for a tokenizer; needs the extra `server`, for llguidance."""

    def __init__(self, tokenizer: Tokenizer, *, rows: int, ends: Collection[int]) -> None:
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

        if not ends:
            raise ParameterError("The model has no end token, which constrained answers need.")
        pieces = TokenizerWrapper(_Pieces(tokenizer, rows, sorted(ends)))
        self._vocabulary = LLTokenizer(pieces, n_vocab=rows, eos_token=sorted(ends))

    def json_schema(self, schema: dict[str, Any]) -> Constraint:
        """JSON that follows `schema`; raises ParameterError for what cannot be followed."""
        # Where white space may stand anywhere, a model may go on with it for ever.
        text = json.dumps(schema | {"x-guidance": {"whitespace_flexible": False}})
        return self._make("%json " + text, text, "schema")

    def choices(self, texts: Sequence[str]) -> Constraint:
        """One of `texts`; raises ParameterError when there are none, or an empty one."""
        if not texts or not all(texts):
            raise ParameterError("choices must be texts that are not empty.")
        quoted = [json.dumps(text, ensure_ascii=False) for text in texts]
        return self._make("(" + " | ".join(quoted) + ")", "".join(texts), "choices")

    def regex(self, pattern: str) -> Constraint:
        """Text that `pattern` matches as a whole; raises ParameterError for a bad one."""
        escaped = re.sub(r"(\\.)|/", lambda found: found[1] or r"\/", pattern, flags=re.DOTALL)
        return self._make(f"PATTERN\nPATTERN: /{escaped}/", pattern, "regex")

    def _make(self, rule: str, given: str, name: str) -> Constraint:
        size = len(given.encode("utf-8", "replace"))
        if size > _MOST_BYTES:
            raise ParameterError(
                "{name} has {size:,} bytes, it must have at most {limit:,}.",
                name=name,
                size=size,
                limit=_MOST_BYTES,
            )
        from llguidance import LLMatcher  # noqa: PLC0415

        # Bytes that two characters share must not be forced: no token ends between them.
        # SentencePiece puts a space before the first word, which decoding takes away again.
        head = '%llguidance {"no_forcing": true}\nstart: " "? answer\n'
        grammar = LLMatcher.grammar_from_lark(f"{head}answer: {rule}\n")
        if not _compiles_in_time(grammar):
            raise ParameterError(
                "{name} takes more than {limit:g} s to compile: take a simpler one.",
                name=name,
                limit=_MOST_SECONDS,
            )
        compiled = LLMatcher(self._vocabulary, grammar, log_level=0)
        _check(compiled)
        return Constraint(grammar, self._vocabulary, compiled)


@lru_cache(maxsize=256)
def _compiles_in_time(grammar: str) -> bool:
    """Try it in a process that can be ended: some small grammars would take hours."""
    try:
        subprocess.run(
            [sys.executable, "-c", _COMPILE],
            input=grammar.encode("utf-8", "surrogatepass"),
            capture_output=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return True


class _Pieces:
    """The vocabulary as llguidance wants it: the bytes of each id."""

    def __init__(self, tokenizer: Tokenizer, rows: int, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = ends[0], None
        tokens = {*range(tokenizer.num_pieces), *tokenizer.ids_beyond}
        texts = {i for i in tokens.difference(ends) if not tokenizer.is_silent(i)}
        self.special_token_ids = [i for i in range(rows) if i not in texts]
        self.tokens = [tokenizer.piece(i) if i in texts else b"" for i in range(rows)]

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8", "replace"))


def _check(matcher: Any) -> None:
    if matcher.is_error():
        raise ParameterError(
            "The constraint cannot be used: {reason}", reason=_one_line(matcher.get_error())
        )


def _one_line(text: str) -> str:
    """The reason alone: what follows it is the state of the parser, with what was said."""
    return " ".join(text.partition("<state>")[0].split())[:300]
