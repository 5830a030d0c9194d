"""What a benchmark run found, samples in seconds and memory in bytes, and how to repeat it."""

from __future__ import annotations

import gzip
import statistics
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from issun.benchmarks.adjusted import Timed, adjusted
from issun.benchmarks.errors import BenchError
from issun.benchmarks.worker import ANSWERED, REST
from issun.runtime.files import as_utf8

FORMAT_VERSION = 1
PUBLISHED = Path(__file__).with_name("published.json")  # of the 1.3 B shape: what `fit` reads
_GZIP = b"\x1f\x8b"  # how a compressed file begins
Status = Literal["measured", "skipped", "failed", "crashed"]


class Moment(NamedTuple):
    """Resident memory at one time: seconds since the start, bytes by kind of page."""

    seconds: float
    anonymous: int
    file: int
    shared: int

    @property
    def total(self) -> int:
        """All resident bytes."""
        return self.anonymous + self.file + self.shared


class Memory(msgspec.Struct, kw_only=True):
    """Memory of a process and its children over its life, in bytes.

    `peak` is the kernel's own, `anonymous`, `file` and `shared` are sampled at the moment of the
    largest sum. `marks` name moments: (seconds, what had just been done).
    """

    peak: int = 0
    anonymous: int = 0
    file: int = 0
    shared: int = 0
    seconds: float = 0.0
    moments: list[Moment] = []
    marks: list[tuple[float, str]] = []

    @property
    def steady(self) -> Moment | None:
        """What is still held behind the work: the last look that the process's end is not in."""
        ends = [seconds + 0.8 * REST for seconds, mark in self.marks if mark == ANSWERED]
        seen = [moment for moment in self.moments if ends and moment.seconds <= ends[0]]
        return seen[-1] if seen else None


class EngineResult(msgspec.Struct, kw_only=True):
    """One engine with one number of threads.

    `samples` are seconds by test: `load-first` (files not in the page cache), `load`, `cold-N` and
    `prefill-N` (first and later readings of N tokens in a process), `decode-N` (each of the tokens
    decoded behind N), `turn-fresh`, `turn-reuse` and `turn-ahead` (a chat turn's first token),
    `turn-reading` (what was read ahead for the last).
    `memory` is by context length in tokens. `unsteady` counts tests that were kept although the
    machine did not read as fast as usual. `windows` has for each sample of a test that was taken in
    turns which of the run's windows it was taken in; `typical` has the seconds by which such tests
    of several engines are compared (see `adjusted`).
    """

    name: str
    label: str
    threads: int
    settings: str = ""
    versions: dict[str, str] = {}
    status: Status = "measured"
    reason: str = ""
    bundle: str = ""
    disk_bytes: int = 0
    weight_bytes: int = 0  # read for each token decoded
    kv_bytes: int = 0  # of each token in the cache, read for each token decoded
    conversion: Memory | None = None
    memory: dict[int, Memory] = {}
    rounds: int = 0
    unsteady: int = 0
    samples: dict[str, list[float]] = {}
    windows: dict[str, list[int]] = {}
    typical: dict[str, float] = {}


class Machine(msgspec.Struct, kw_only=True):
    """Where it ran."""

    cpu: str
    flags: list[str]  # those that matter to matrix products
    cores: int
    memory_bytes: int
    system: str
    python: str


class Results(msgspec.Struct, kw_only=True):
    """A whole run; `bandwidth` has bytes a second by number of threads.

    `turn` is for how many seconds an engine had the machine before the next one had it; 0 where
    each of them did all its tests of a round in one go.
    """

    format: int = FORMAT_VERSION
    date: str
    issun: str
    commit: str
    machine: Machine
    checkpoint: str
    parameters: int
    shape: dict[str, int]
    seed: int
    turn: float = 0.0
    bandwidth: dict[int, list[float]] = {}
    engines: list[EngineResult] = []

    def engine(self, name: str, threads: int) -> EngineResult | None:
        """The result with this name and this number of threads, if there is one."""
        return next((e for e in self.engines if (e.name, e.threads) == (name, threads)), None)

    def next_window(self) -> int:
        """The number of a window that no sample is of."""
        seen = (number for e in self.engines for taken in e.windows.values() for number in taken)
        return 1 + max(seen, default=-1)

    def settle(self) -> None:
        """Find the typical times of all tests that engines took turns in.

        An engine that had all its windows to itself has nobody to be compared with: it keeps its
        median.
        """
        for test in sorted({test for engine in self.engines for test in engine.windows}):
            timed = {
                f"{e.name} {e.threads}": (e, Timed(e.samples[test], e.windows[test]))
                for e in self.engines
                if test in e.windows
            }
            present = Counter(w for _, taken in timed.values() for w in set(taken.windows))
            beside = {
                name: taken
                for name, (_, taken) in timed.items()
                if any(present[window] > 1 for window in taken.windows)
            }
            for name, seconds in adjusted(beside).items():
                timed[name][0].typical[test] = seconds


class Stats(NamedTuple):
    """Of some samples; `deviation` is the sample standard deviation, 0 for a single one."""

    number: int
    mean: float
    median: float
    deviation: float
    minimum: float


def stats(samples: Sequence[float]) -> Stats:
    """Mean, median, standard deviation and minimum of one or more samples."""
    spread = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return Stats(
        len(samples), statistics.fmean(samples), statistics.median(samples), spread, min(samples)
    )


def speed(engine: EngineResult, test: str) -> float | None:
    """Tokens a second of `prefill-N`, `cold-N` or `decode-N`, if measured.

    By the typical time where engines took turns, else by the median.
    """
    samples = engine.samples.get(test)
    if not samples:
        return None
    kind, _, size = test.rpartition("-")
    seconds = engine.typical.get(test) or stats(samples).median
    return (1 if kind == "decode" else int(size)) / seconds


def token_bytes(engine: EngineResult, depth: int) -> int:
    """Bytes of weights and cache that decoding a token behind `depth` others reads."""
    return engine.weight_bytes + depth * engine.kv_bytes


def share_of_limit(results: Results, engine: EngineResult, depth: int) -> float | None:
    """Which share of the measured read bandwidth decoding behind `depth` tokens reaches."""
    rate = speed(engine, f"decode-{depth}")
    limits = results.bandwidth.get(engine.threads)
    if rate is None or not limits or not engine.weight_bytes:
        return None
    return rate * token_bytes(engine, depth) / stats(limits).median


def depths(engine: EngineResult, kind: str) -> list[int]:
    """The sizes N of the tests `kind-N` that were measured, smallest first."""
    prefix = f"{kind}-"
    sizes = [name.removeprefix(prefix) for name in engine.samples if name.startswith(prefix)]
    return sorted(int(size) for size in sizes if size.isdigit())


def write_results(path: Path, results: Results) -> None:
    """Replace the file in one step, compressed if its name ends in `.gz`.

    An interruption leaves either the old file or the new one.
    """
    content = msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # the same results give the same bytes
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote; raises BenchError for anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(
            "{path} cannot be read: {reason}", path=path, reason=error.strerror
        ) from error
    try:
        plain = gzip.decompress(content) if content.startswith(_GZIP) else content
        found = msgspec.json.decode(as_utf8(plain), type=Results)
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
    ) as error:
        raise BenchError("{path} holds no results: {reason}", path=path, reason=error) from error
    if found.format != FORMAT_VERSION:
        raise BenchError(
            "{path} has format {found}; this version of issun reads format {known}.",
            path=path,
            found=found.format,
            known=FORMAT_VERSION,
        )
    return found
