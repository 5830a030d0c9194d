"""`issun bench run --url`: measures running servers."""

from __future__ import annotations

from pathlib import Path

from issun.cli.language import note, printable, show
from issun.runtime import ParameterError
from issun.runtime.errors import check_choice

_FORMATS = ("terminal", "markdown", "json")


def measure_servers(
    urls: list[str],
    *,
    model: str | None,
    timeout: float,
    concurrency: tuple[int, ...],
    rounds: int | None,
    tokens: int,
    form: str,
    output: Path,
) -> None:
    """Measure running servers, store the results, and print a table.

    Raises BenchError at the end if no answer was complete.
    """
    import msgspec  # noqa: PLC0415

    from issun.benchmarks import servers  # noqa: PLC0415
    from issun.benchmarks.errors import BenchError  # noqa: PLC0415
    from issun.benchmarks.locking import locked  # noqa: PLC0415
    from issun.benchmarks.measured import write_atomically  # noqa: PLC0415
    from issun.benchmarks.openai_stream import Server  # noqa: PLC0415

    check_choice("format", form, _FORMATS)

    def written(results: servers.ServerResults) -> bytes:
        return msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"

    with locked(output):
        if output.exists():
            raise ParameterError("{path} exists: name another file with -o.", path=output)
        try:
            found = servers.measure(
                [Server(url, model=model, timeout=timeout) for url in urls],
                concurrency=concurrency,
                rounds=rounds or servers.ROUNDS,
                tokens=tokens,
                report=show,
                store=lambda results: write_atomically(output, written(results)),
            )
        except KeyboardInterrupt:
            if output.exists():
                note("[stopped: the measurements so far are in {path}]", path=output)
            raise
    table = {"terminal": servers.terminal, "markdown": servers.markdown}
    print(written(found).decode() if form == "json" else printable(table[form](found)))
    note("All measurements are in {path}.", path=output)
    if all(level.errors == level.requests for level in found.levels):
        raise BenchError(
            "No answer was complete; the first error: {reason}",
            reason=found.levels[0].first_error,
        )
