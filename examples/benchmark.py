"""A benchmark of your own bundle: python benchmark.py b8    (default: the demonstration model).

`issun bench b8` measures much more, with memory, every context length and a report.
"""

import sys
import time
from dataclasses import replace
from statistics import median

from issun.runtime import Model

ROUNDS = 5


def main() -> None:
    started = time.perf_counter()
    with Model.load(sys.argv[1] if len(sys.argv) > 1 else None) as model:
        print(f"load     {time.perf_counter() - started:8.2f} s")

        # Prefill is measured with a long prompt, decoding with a long answer: no end token.
        prompt = model.prompt("次の文章を読んでください。", "富士山は日本で一番高い山です。" * 10)
        ends = dict.fromkeys(model.manifest.tokens.end_ids, -100.0)
        params = replace(
            model.default_params, temperature=0, max_new_tokens=64, logit_bias=ends, lookup=False
        )
        model.generate(prompt, params)  # the first run warms up, and does not count
        timings = [model.generate(prompt, params).timings for _ in range(ROUNDS)]

    prefill = [one.prefill_tokens_per_second for one in timings]
    decode = [one.tokens_per_second for one in timings]
    for name, values in (("prefill", prefill), ("decode", decode)):
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        print(f"{name:<8} {median(values):8,.0f} tokens/s, median of {ROUNDS} ({spread})")
    print(
        f"({timings[0].prompt_tokens} tokens in the prompt, {timings[0].new_tokens} in the answer)"
    )


if __name__ == "__main__":
    main()
