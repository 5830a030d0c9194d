"""What drawing a token with every filter on takes of a decode step.

`python -m issun.benchmarks.sampling BUNDLE [--steps 200]` draws behind every step, since a step
leaves nothing of the sampler in the CPU's caches. All rows of the head count as real pieces, as
they nearly do with the model's own tokenizer; a small one would leave less to look at.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from issun.runtime import Model, SamplingParams
from issun.runtime.sampling import Sampler, Vocabulary

EVERYTHING = SamplingParams(
    temperature=0.7,
    top_k=50,
    top_p=0.95,
    min_p=0.01,
    typical_p=0.95,
    repetition_penalty=1.1,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    no_repeat_ngram_size=4,
    logit_bias={10: 1.0},
    seed=0,
)
_CONTEXT = 128  # tokens before the first step


def measure(model: Model, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each step and of each draw behind it."""
    rows, unk = model.decoder.vocab_size, model.manifest.tokens.unk
    vocabulary = Vocabulary(rows=rows, pieces=rows, ends=(), unk=unk)
    sampler = Sampler(EVERYTHING, vocabulary, np.random.default_rng(0))
    prompt = [int(token) for token in np.random.default_rng(0).integers(7, rows, _CONTEXT)]
    cache, answer = model.new_cache(), list[int]()
    logits = model.decoder.prefill(cache, prompt)
    stepping, drawing = [], []
    for _ in range(steps):
        began = time.perf_counter()
        answer.append(sampler.sample(logits, prompt, answer))
        drawn = time.perf_counter()
        logits = model.decoder.step(cache, answer[-1])
        drawing.append(drawn - began)
        stepping.append(time.perf_counter() - drawn)
    return stepping, drawing


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    args = parser.parse_args()
    with Model.load(args.bundle, trust=args.trust) as model:
        stepping, drawing = measure(model, args.steps)
    step, draw = median(stepping[1:]), median(drawing[1:])
    print(
        f"{args.bundle}: a step {step * 1e3:.2f} ms, a draw with every filter {draw * 1e3:.3f} ms, "
        f"{draw / step:.1%} of the step (medians of {len(drawing) - 1})"
    )


if __name__ == "__main__":
    main()
