"""How far a bundle is from the model that it was made from: on a text, and in its own answers."""

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
from issun.runtime.distributions import log_softmax, row_kl
from issun.runtime.errors import ParameterError
from issun.runtime.files import read_text
from issun.runtime.kv_cache import KVCache
from issun.runtime.manifest import KVCacheType

PACKAGED = Path(__file__).with_name("fidelity.txt")
ANSWERS, LENGTH = 20, 100  # greedy answers to compare, and tokens of each
LEAST = 32  # tokens of a text

_BANDS = (0, 32, 128, 256, 512)  # positions in a window
_ROWS = 64  # at a time in float64
_GREEDY = SamplingParams(temperature=0, max_new_tokens=LENGTH, lookup=False)

Progress = Callable[[str, int, int], object]


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the positions from `start` to before `stop` in their windows."""

    start: int
    stop: int
    kl: float
    agreement: float


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; perplexities with their standard errors over tokens.

    `ratio` is the bundle's perplexity by the reference's, its error that of the paired difference.
    KL divergence in nats over positions. `agreement` is the share of positions with the same
    likeliest token, `identical` that of the greedy answers that are the same for 100 tokens.
    `top` is how many of the reference's likeliest tokens entered the KL divergence one by one where
    its disk space did not hold all; the rest entered as one, which makes the divergence smaller.
    `clipped` is the share of an int8 KV cache's values that lie at an end of their range.
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


def read_named(path: Path | None) -> tuple[str, str]:
    """The name and content of a text; by default the one that comes along."""
    path = PACKAGED if path is None else path
    text = read_text(path)
    if not text.strip():
        raise ParameterError("{path} holds no text.", path=path)
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
    """The figures of `bundle` with each of its `kv_caches` beside the `reference` bundle.

    One model is in memory at a time: the reference's logits go to a temporary file, in `work` where
    that is given. `trust` is for both, as for `Model.load`. Raises BenchError where the two have
    different vocabularies, or no room is left.
    """
    name, content = text
    with TemporaryDirectory(dir=work) as folder:
        with Model.load(reference, kv_cache="float32", keep_packed=False, trust=trust) as model:
            ids = model.tokenizer.encode(content)
            if len(ids) < LEAST:
                raise BenchError(
                    "The text has {tokens} tokens, it must have {least} or more.",
                    tokens=len(ids),
                    least=LEAST,
                )
            windows = list(cut_windows(ids, model.decoder.n_positions))
            kept = Reference(Path(folder) / "logits", len(ids), model.manifest.architecture)
            for window in windows:
                progress("reference", kept.positions, len(ids))
                kept.add(window, model.score(window))
            said = _answers(model, content, answers, progress)
        for kind in kv_caches:
            with Model.load(bundle, kv_cache=kind, trust=trust) as model:
                _check_vocabulary(model, content, ids, kept)
                found, clipped = _Found(kept), _Clipped(model)
                for window in windows:
                    progress("bundle", found.positions, len(ids))
                    found.add(window, clipped.score(window))
                own = _answers(model, content, answers, progress)
            same = [one == other for one, other in zip(said, own, strict=True)]
            yield (
                kind,
                found.result(
                    against=against,
                    text=name,
                    sha256=hashlib.sha256(content.encode()).hexdigest(),
                    answers=len(same),
                    identical=sum(same) / len(same) if same else None,
                    date=date,
                    clipped=clipped.share,
                ),
            )


class _Clipped:
    """Scores windows, and counts what an int8 KV cache clips of them."""

    def __init__(self, model: Model) -> None:
        self._decoder, self._cache = model.decoder, model.new_cache()
        self._clipped = self._values = 0

    def score(self, window: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every position, as `Model.score` gives them."""
        self._cache.rewind(0)
        logits = np.concatenate(list(self._decoder.score(self._cache, window)))
        if isinstance(self._cache, KVCache) and self._decoder.kv_cache == "int8":
            clipped, values = self._cache.clipped()
            self._clipped, self._values = self._clipped + clipped, self._values + values
        return logits

    @property
    def share(self) -> float | None:
        """The share of all values that were clipped; None where the cache is float32."""
        return self._clipped / self._values if self._values else None


def _answers(model: Model, text: str, count: int, progress: Progress) -> list[list[int]]:
    """Greedy answers to the first paragraphs that leave room for them."""
    prompts = [model.prompt(line) for line in text.splitlines() if line.strip()]
    fitting = [p for p in prompts if len(p) + LENGTH <= model.decoder.n_positions][:count]
    found = []
    for done, prompt in enumerate(fitting):
        progress("answers", done, len(fitting))
        found.append(model.generate(prompt, _GREEDY).ids)
    return found


def _check_vocabulary(model: Model, text: str, ids: Sequence[int], kept: Reference) -> None:
    if (
        model.tokenizer.encode(text) != list(ids)
        or model.manifest.architecture.vocab_size != kept.vocab_size
    ):
        raise BenchError("The two models have different vocabularies.")


class _Found:
    """The bundle's figures as they grow, window by window."""

    def __init__(self, kept: Reference) -> None:
        self._kept, self._likeliest = kept, kept.likeliest()
        self.positions = 0
        self._divergences: list[Vector] = []
        self._agreements: list[NDArray[np.bool_]] = []
        self._losses: list[Vector] = []
        self._places: list[NDArray[np.int64]] = []

    def add(self, window: Sequence[int], logits: NDArray[np.float32]) -> None:
        """Take the logits of the next window's positions."""
        for start in range(0, len(window), _ROWS):
            rows = log_softmax(logits[start : start + _ROWS])
            first, second = self._kept.read(self.positions, rows)
            self._divergences.append(row_kl(first, second))
            likeliest = self._likeliest[self.positions : self.positions + len(rows)]
            self._agreements.append(rows.argmax(axis=-1) == likeliest)
            self._losses.append(losses_of(rows, window[start + 1 : start + 1 + len(rows)]))
            self.positions += len(rows)
        self._places.append(np.arange(len(window)))

    def result(self, **known: Any) -> Fidelity:
        """The figures of all windows, with those fields that the caller knows."""
        kl, agreed = np.concatenate(self._divergences), np.concatenate(self._agreements)
        loss, place = np.concatenate(self._losses), np.concatenate(self._places)
        reference = self._kept.losses()
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
            **known,
            positions=len(kl),
            top=self._kept.top,
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
    """exp of the mean, and its standard error."""
    mean = math.exp(losses.mean())
    return mean, mean * float(losses.std(ddof=1)) / math.sqrt(len(losses))
