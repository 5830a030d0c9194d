"""Several samples of one prompt, ranked by how likely the model finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral

from issun.runtime.decoding.answer import Completion
from issun.runtime.decoding.sampling import SamplingParams, seeded
from issun.runtime.errors import ParameterError, check_range


def sample_params(params: SamplingParams, n: int, best_of: int | None) -> list[SamplingParams]:
    """Return the parameters of each of `best_of` samples (default: `n`), of which `n` are kept.

    Raises ParameterError if `best_of` is less than `n`, or if all samples would be equal.
    """
    check_range("n", n, Integral, 1, float("inf"))
    best_of = n if best_of is None else best_of
    check_range("best_of", best_of, Integral, n, float("inf"))
    if best_of > 1 and params.temperature == 0:
        raise ParameterError(
            "temperature is 0, so all {count} answers would be equal: raise the temperature, or "
            "use beam search.",
            count=best_of,
        )
    params = replace(params, logprobs=max(1, params.logprobs))
    return [seeded(params, index) for index in range(best_of)]


def best_samples(samples: Sequence[Completion], n: int, *, logprobs: bool) -> list[Completion]:
    """Return the best `n` of `samples` by their mean raw log-probability per token, the score.

    The end token counts as one. The completions keep their log-probabilities if `logprobs`.
    """
    scores = [
        sum(entry.drawn for entry in sample.logprobs) / len(sample.logprobs) for sample in samples
    ]
    ranked = sorted(zip(scores, samples, strict=True), key=lambda pair: pair[0], reverse=True)
    return [
        replace(sample, score=score, logprobs=sample.logprobs if logprobs else ())
        for score, sample in ranked[:n]
    ]
