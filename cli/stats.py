"""Speed and memory of an answer, for `--stats`."""

from __future__ import annotations

import sys

from issun.cli.language import note
from issun.runtime import Completion


def print_stats(completion: Completion) -> None:
    """Print tokens, speed, latencies (TTFT, ITL), and current and peak memory on stderr."""
    timings = completion.timings
    itl = timings.inter_token_latency
    note(
        "[{new} tokens, {speed:.1f} tokens/s, TTFT {ttft:.2f} s, ITL p50 {p50:.0f} ms, p99 "
        "{p99:.0f} ms, prompt {prompt} tokens ({reused} reused), memory {now:,.0f} MB, peak "
        "{peak:,.0f} MB]",
        new=timings.new_tokens,
        speed=timings.tokens_per_second,
        ttft=timings.time_to_first_token,
        p50=1e3 * (itl.p50 if itl else 0),
        p99=1e3 * (itl.p99 if itl else 0),
        prompt=timings.prompt_tokens,
        reused=timings.reused_tokens,
        now=resident_bytes() / 1e6,
        peak=peak_bytes() / 1e6,
    )


def resident_bytes() -> int:
    """Resident memory of this process in bytes."""
    import psutil  # noqa: PLC0415

    resident: int = psutil.Process().memory_info().rss
    return resident


def peak_bytes() -> int:
    """Peak resident memory of this process in bytes."""
    if sys.platform == "win32":
        import psutil  # noqa: PLC0415

        peak: int = psutil.Process().memory_info().peak_wset
        return peak
    import resource  # noqa: PLC0415

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
