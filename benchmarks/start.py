"""Measures the time from the start of `issun generate` to the first word of its answer.

`python -m issun.benchmarks.start BUNDLE [--rounds 9]` answers once, so that weights are packed and
files are in the page cache, and then times a new process in every round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median

from issun.benchmarks.errors import BenchError

QUESTION = "日本で一番高い山は何ですか。"


def _command(bundle: str, *options: str) -> list[str]:
    fixed = ["--instruction", QUESTION, "--min-new-tokens", "2", "--max-new-tokens", "2"]
    return [sys.executable, "-P", "-m", "issun.cli.main", "generate", bundle, *fixed, *options]


def prompt_tokens(bundle: str, *options: str) -> int:
    """Answer once; returns the prompt's length in tokens. Raises BenchError if that fails."""
    done = subprocess.run(
        _command(bundle, "--json", *options), capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise BenchError("{bundle} does not answer: {reason}", bundle=bundle, reason=done.stderr)
    return int(json.loads(done.stdout)["timings"]["prompt_tokens"])


def seconds_to_first_word(bundle: str, *options: str) -> float:
    """Start a new process and time it until its first output."""
    started = time.perf_counter()
    with subprocess.Popen(_command(bundle, *options), stdout=subprocess.PIPE) as process:
        if process.stdout is None or not process.stdout.read(1):
            raise BenchError("{bundle} does not answer: {reason}", bundle=bundle, reason="no text")
        return time.perf_counter() - started


def main() -> None:
    """Measure the bundle of the command line; other options are passed to `issun generate`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=9)
    args, options = parser.parse_known_args()
    tokens = prompt_tokens(args.bundle, *options)
    found = [seconds_to_first_word(args.bundle, *options) for _ in range(args.rounds)]
    print(
        f"{args.bundle}: first word after a {tokens}-token prompt {median(found):.2f} s after the "
        f"start (median of {len(found)}, {min(found):.2f} to {max(found):.2f} s)"
    )


if __name__ == "__main__":
    main()
