"""Measures the time of sampling with all filters, relative to a decode step.

`python -m issun.benchmarks.sampling BUNDLE [--steps 200]` samples after every step, because a step
evicts the sampler's data from the CPU caches. All rows of the head count as tokens of the
vocabulary, so that the result does not depend on the size of the tokenizer.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from issun.runtime import Model, SamplingParams
from issun.runtime.decoding.sampling import Sampler, Vocabulary

ALL_FILTERS = SamplingParams(
    temperature=0.7,
    top_k=50,
    top_p=0.95,
    min_p=0.01,
    typical_p=0.95,
    repetition_penalty=1.1,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    no_repeat_ngram_size=4,
    top_n_sigma=3.0,
    dynatemp_range=0.2,
    xtc_probability=0.5,
    dry_multiplier=0.8,
    mirostat=2,
    logit_bias={10: 1.0},
    seed=0,
)
_CONTEXT = 128  # tokens before the first step


def measure(model: Model, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each decode step, and of sampling after it."""
    rows, unk = model.decoder.vocab_size, model.manifest.tokens.unk
    vocabulary = Vocabulary(rows=rows, pieces=rows, ends=(), unk=unk)
    sampler = Sampler(ALL_FILTERS, vocabulary, np.random.default_rng(0))
    prompt = [int(token) for token in np.random.default_rng(0).integers(7, rows, _CONTEXT)]
    cache, answer = model.new_cache(), list[int]()
    logits = model.decoder.prefill(cache, prompt)
    step_seconds, sampling_seconds = [], []
    for _ in range(steps):
        started = time.perf_counter()
        answer.append(sampler.sample(logits, prompt, answer))
        sampled = time.perf_counter()
        logits = model.decoder.step(cache, answer[-1])
        sampling_seconds.append(sampled - started)
        step_seconds.append(time.perf_counter() - sampled)
    return step_seconds, sampling_seconds


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    args = parser.parse_args()
    with Model.load(args.bundle, trust=args.trust) as model:
        step_seconds, sampling_seconds = measure(model, args.steps)
    step, sampling = median(step_seconds[1:]), median(sampling_seconds[1:])
    print(
        f"{args.bundle}: decode step {step * 1e3:.2f} ms, sampling with all filters "
        f"{sampling * 1e3:.3f} ms, {sampling / step:.1%} of the step "
        f"(medians of {len(sampling_seconds) - 1})"
    )


if __name__ == "__main__":
    main()
