"""Compares a bundle with the model it was exported from, on a text and in greedy answers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.divergence import Vector, cut_windows, losses_of
from issun.benchmarks.errors import BenchError
from issun.benchmarks.reference import Reference
from issun.runtime import Model, SamplingParams
from issun.runtime.decoding.distributions import log_softmax, row_kl
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.errors import ParameterError
from issun.runtime.files import read_text
from issun.runtime.manifest import KVCacheType

PACKAGED = Path(__file__).with_name("fidelity.txt")
ANSWERS, LENGTH = 20, 100  # greedy answers to compare, and tokens of each
LEAST = 32  # minimum tokens of a text

_BANDS = (0, 32, 128, 256, 512)  # positions in a window
_ROWS = 64  # processed at a time in float64
_GREEDY = SamplingParams(temperature=0, max_new_tokens=LENGTH, lookup=False)

Progress = Callable[[str, int, int], object]


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """Results for the positions from `start` to before `stop` in their windows."""

    start: int
    stop: int
    kl: float
    agreement: float


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a comparison; errors of perplexities are standard errors over tokens.

    `ratio` is the bundle's perplexity divided by the reference's, `ratio_error` its standard error
    from paired differences. KL divergences are in nats over positions. `agreement` is the share of
    positions with the same most likely token, `identical` the share of greedy answers with the same
    100 tokens. If disk space was short, `top` is the number of most likely tokens of the reference
    that count individually in the KL divergence; the others count as one, which lowers it.
    `clipped` is the share of an int8 KV cache's values at the ends of their range.
    """

    against: str
    text: str
    sha256: str
    positions: int
    top: int | None
    reference_perplexity: float
    reference_error: float
    perplexity: float
    error: float
    ratio: float
    ratio_error: float
    kl_mean: float
    kl_median: float
    kl_p99: float
    kl_max: float
    agreement: float
    bands: list[Band]
    answers: int
    identical: float | None
    date: str
    clipped: float | None = None


def load_text(path: Path | None) -> tuple[str, str]:
    """The name and content of a text file; by default of the packaged one."""
    path = PACKAGED if path is None else path
    text = read_text(path)
    if not text.strip():
        raise ParameterError("{path} contains no text.", path=path)
    return path.name, text


def compare(
    reference: Path,
    bundle: Path,
    text: tuple[str, str],
    *,
    against: str,
    date: str,
    kv_caches: Sequence[KVCacheType],
    answers: int = ANSWERS,
    trust: bool = False,
    work: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Iterator[tuple[KVCacheType, Fidelity]]:
    """Compare `bundle`, with each of `kv_caches`, with the `reference` bundle.

    Only one model is in memory at a time: the reference's logits go to a temporary file, in the
    folder `work` if given. `trust` applies to both models, as in `Model.load`. Raises BenchError if
    the vocabularies differ or disk space is short.
    """
    name, content = text
    with TemporaryDirectory(dir=work) as folder:
        with Model.load(reference, kv_cache="float32", keep_packed=False, trust=trust) as model:
            ids = model.encode(content)
            if len(ids) < LEAST:
                raise BenchError(
                    "The text has {tokens} tokens, it needs at least {least}.",
                    tokens=len(ids),
                    least=LEAST,
                )
            windows = list(cut_windows(ids, model.decoder.n_positions))
            expected = Reference(Path(folder) / "logits", len(ids), model.manifest.architecture)
            for window in windows:
                progress("reference", expected.positions, len(ids))
                expected.add(window, model.score(window))
            expected_answers = _answers(model, content, answers, progress)
        for kind in kv_caches:
            with Model.load(bundle, kv_cache=kind, trust=trust) as model:
                _check_vocabulary(model, content, ids, expected)
                comparison, scorer = _Comparison(expected), _Scorer(model)
                for window in windows:
                    progress("bundle", comparison.positions, len(ids))
                    comparison.add(window, scorer.score(window))
                own_answers = _answers(model, content, answers, progress)
            same = [a == b for a, b in zip(expected_answers, own_answers, strict=True)]
            yield (
                kind,
                comparison.result(
                    against=against,
                    text=name,
                    sha256=hashlib.sha256(content.encode()).hexdigest(),
                    answers=len(same),
                    identical=sum(same) / len(same) if same else None,
                    date=date,
                    clipped=scorer.clipped_share,
                ),
            )


class _Scorer:
    """Scores windows, and counts the values that an int8 KV cache clips."""

    def __init__(self, model: Model) -> None:
        self._decoder, self._cache = model.decoder, model.new_cache()
        self._clipped = self._values = 0

    def score(self, window: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every position, as from `Model.score`."""
        self._cache.rewind(0)
        logits = np.concatenate(list(self._decoder.score(self._cache, window)))
        if isinstance(self._cache, KVCache) and self._decoder.kv_cache == "int8":
            clipped, values = self._cache.clipped()
            self._clipped, self._values = self._clipped + clipped, self._values + values
        return logits

    @property
    def clipped_share(self) -> float | None:
        """The share of clipped values; None for a float32 KV cache."""
        return self._clipped / self._values if self._values else None


def _answers(model: Model, text: str, count: int, progress: Progress) -> list[list[int]]:
    """Greedy answers to the first paragraphs that leave room for an answer."""
    prompts = [model.prompt(line) for line in text.splitlines() if line.strip()]
    fitting = [p for p in prompts if len(p) + LENGTH <= model.decoder.n_positions][:count]
    found = []
    for done, prompt in enumerate(fitting):
        progress("answers", done, len(fitting))
        found.append(model.generate(prompt, _GREEDY).ids)
    return found


def _check_vocabulary(model: Model, text: str, ids: Sequence[int], expected: Reference) -> None:
    if (
        model.encode(text) != list(ids)
        or model.manifest.architecture.vocab_size != expected.vocab_size
    ):
        raise BenchError("The two models have different vocabularies.")


class _Comparison:
    """Accumulates a bundle's results window by window."""

    def __init__(self, reference: Reference) -> None:
        self._reference, self._argmax = reference, reference.argmax()
        self.positions = 0
        self._divergences: list[Vector] = []
        self._agreements: list[NDArray[np.bool_]] = []
        self._losses: list[Vector] = []
        self._places: list[NDArray[np.int64]] = []

    def add(self, window: Sequence[int], logits: NDArray[np.float32]) -> None:
        """Add the logits of the next window's positions."""
        for start in range(0, len(window), _ROWS):
            rows = log_softmax(logits[start : start + _ROWS])
            expected, own = self._reference.read(self.positions, rows)
            self._divergences.append(row_kl(expected, own))
            expected_ids = self._argmax[self.positions : self.positions + len(rows)]
            self._agreements.append(rows.argmax(axis=-1) == expected_ids)
            self._losses.append(losses_of(rows, window[start + 1 : start + 1 + len(rows)]))
            self.positions += len(rows)
        self._places.append(np.arange(len(window)))

    def result(self, **fields: Any) -> Fidelity:
        """The results of all windows, with the other `fields` of Fidelity."""
        kl, agreed = np.concatenate(self._divergences), np.concatenate(self._agreements)
        loss, place = np.concatenate(self._losses), np.concatenate(self._places)
        reference = self._reference.losses()
        reference_perplexity, reference_error = _perplexity(reference)
        perplexity, error = _perplexity(loss)
        ratio, ratio_error = _perplexity(loss - reference)
        bands = []
        for start, stop in pairwise(_BANDS):
            inside = (start <= place) & (place < stop)
            if inside.any():
                mean, same = float(kl[inside].mean()), float(agreed[inside].mean())
                bands.append(Band(start=start, stop=stop, kl=mean, agreement=same))
        return Fidelity(
            **fields,
            positions=len(kl),
            top=self._reference.top,
            reference_perplexity=reference_perplexity,
            reference_error=reference_error,
            perplexity=perplexity,
            error=error,
            ratio=ratio,
            ratio_error=ratio_error,
            kl_mean=float(kl.mean()),
            kl_median=float(np.median(kl)),
            kl_p99=float(np.quantile(kl, 0.99)),
            kl_max=float(kl.max()),
            agreement=float(agreed.mean()),
            bands=bands,
        )


def _perplexity(losses: Vector) -> tuple[float, float]:
    """The perplexity and its standard error."""
    mean = math.exp(losses.mean())
    return mean, mean * float(losses.std(ddof=1)) / math.sqrt(len(losses))
