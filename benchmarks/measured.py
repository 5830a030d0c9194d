"""The results of a benchmark run: samples in seconds, memory in bytes, machine and settings."""

from __future__ import annotations

import gzip
import statistics
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec

from issun.benchmarks.energy import Joules
from issun.benchmarks.errors import BenchError
from issun.runtime.decoding.latency import Percentiles, percentiles
from issun.runtime.files import as_utf8

FORMAT_VERSION = 1
PUBLISHED = Path(__file__).with_name("published.json")  # of the 1.3 B shape, read by `bench fit`
_GZIP = b"\x1f\x8b"  # magic bytes
SHORTEST = 1e-9  # seconds, less than a step of a clock
# What a file may contain: sizes that a float holds, and times from which speeds can be computed.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Samples = Annotated[
    list[Annotated[float, msgspec.Meta(ge=SHORTEST, le=1e9)]], msgspec.Meta(min_length=1)
]
_Rates = Annotated[list[Annotated[float, msgspec.Meta(ge=1, le=1e18)]], msgspec.Meta(min_length=1)]
_Test = Annotated[str, msgspec.Meta(pattern=r"^(decode-0|[a-z]+(-[a-z]+)*(-[1-9][0-9]{0,8})?)\Z")]
Status = Literal["measured", "skipped", "failed", "crashed"]


class Memory(msgspec.Struct, kw_only=True):
    """Memory of a process and its children over its lifetime, in bytes.

    `peak` is the kernel's peak; `anonymous`, `file` and `shared` are those of the sample with the
    largest sum; `resting` is all resident memory half a second after the answer, 0 if unknown.
    """

    peak: _Count = 0
    anonymous: _Count = 0
    file: _Count = 0
    shared: _Count = 0
    resting: _Count = 0
    seconds: _Seconds = 0.0


class EngineResult(msgspec.Struct, kw_only=True):
    """The results of an engine with a number of threads.

    `samples` are seconds by test: `load-first` (files not in the page cache), `load`, `cold-N` and
    `prefill-N` (first and later prefills of N tokens in a process), `decode-N` (each token decoded
    after N tokens), `turn-fresh`, `turn-reuse`, `turn-ahead` and `turn-reading` (see `chat_turn`).
    `memory` is by context length in tokens, and so is `energy`, that of a decoded token above idle.
    """

    name: str
    label: str
    threads: _Size
    settings: str = ""
    versions: dict[str, str] = {}
    status: Status = "measured"
    reason: str = ""
    bundle: str = ""
    disk_bytes: _Count = 0
    weight_bytes: _Count = 0  # read per decoded token
    kv_bytes: _Count = 0  # read per decoded token and token in the KV cache
    conversion: Memory | None = None
    memory: dict[_Size, Memory] = {}
    energy: dict[_Size, Joules] = {}
    kv_cache: str = ""  # its type; empty if unknown
    chunk: _Count = 0  # prompt tokens that are computed together; 0: all
    rounds: _Count = 0
    samples: dict[_Test, _Samples] = {}


class Machine(msgspec.Struct, kw_only=True):
    """The machine of a run."""

    cpu: str
    flags: list[str]  # that select matrix-product kernels
    cores: _Count
    memory_bytes: _Count
    system: str
    python: str


class Shape(TypedDict):
    """The sizes of a network, as `runtime.manifest.Architecture` has them."""

    n_layer: _Size
    n_embd: _Size
    n_head: _Size
    n_inner: _Size
    n_positions: _Size
    vocab_size: _Size


class Results(msgspec.Struct, kw_only=True):
    """A complete run; `bandwidth` is in bytes per second, by number of threads.

    `byte_energy` is that of reading a byte above idle, by number of threads; `idle` is in watts.
    `turn` is the time slice of interleaved engines in seconds; 0 if they were not interleaved.
    `tests` are those of each round, as `Plan.tests` has them; empty in older files.
    """

    format: int = FORMAT_VERSION
    date: str
    issun: str
    commit: str
    machine: Machine
    checkpoint: str
    parameters: _Count
    shape: Shape
    seed: int
    turn: float = 0.0
    new_tokens: _Count = 0  # decoded after each prompt; 0 if not recorded
    tests: list[str] = []
    bandwidth: dict[_Size, _Rates] = {}
    byte_energy: dict[_Size, Joules] = {}
    idle: Joules = Joules()
    engines: list[EngineResult] = []

    def engine(self, name: str, threads: int) -> EngineResult | None:
        """The result of the engine `name` with `threads` threads, if there is one."""
        return next((e for e in self.engines if (e.name, e.threads) == (name, threads)), None)


class Stats(NamedTuple):
    """Statistics of samples; `deviation` is the sample standard deviation, 0 for one sample."""

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
    """Tokens per second of `prefill-N`, `cold-N` or `decode-N`, from the median; None if absent."""
    samples = engine.samples.get(test)
    if not samples:
        return None
    kind, _, size = test.rpartition("-")
    return (1 if kind == "decode" else int(size)) / stats(samples).median


class Latency(msgspec.Struct, frozen=True):
    """Seconds and tokens per second of an engine, by prompt length in tokens.

    `ttft` is the time to the first token in a warm process, `itl` the time between two tokens,
    `tpot` the mean time per output token, `throughput` the decode speed by the median ITL.
    """

    ttft: dict[int, Percentiles]
    itl: dict[int, Percentiles]
    tpot: dict[int, float]
    throughput: dict[int, float]


def latency(engine: EngineResult) -> Latency:
    """Compute the engine's latency from its samples."""

    def found(kind: str) -> dict[int, list[float]]:
        return {size: engine.samples[f"{kind}-{size}"] for size in depths(engine, kind)}

    def spread(kind: str) -> dict[int, Percentiles]:
        each = ((size, percentiles(samples)) for size, samples in found(kind).items())
        return {size: one for size, one in each if one}

    decode = {size: samples for size, samples in found("decode").items() if samples}
    return Latency(
        ttft=spread("prefill"),
        itl=spread("decode"),
        tpot={size: statistics.fmean(samples) for size, samples in decode.items()},
        throughput={size: 1 / statistics.median(samples) for size, samples in decode.items()},
    )


def token_bytes(engine: EngineResult, depth: int) -> int:
    """Bytes of weights and KV cache read to decode a token after `depth` tokens."""
    return engine.weight_bytes + depth * engine.kv_bytes


def share_of_limit(results: Results, engine: EngineResult, depth: int) -> float | None:
    """The share of the measured read bandwidth that decoding after `depth` tokens reaches."""
    rate = speed(engine, f"decode-{depth}")
    limits = results.bandwidth.get(engine.threads)
    if rate is None or not limits or not engine.weight_bytes:
        return None
    return rate * token_bytes(engine, depth) / stats(limits).median


def energy_limit(results: Results, engine: EngineResult, depth: int) -> Joules:
    """The energy that only reading weights and KV cache takes, for a token after `depth` tokens."""
    if not engine.weight_bytes:
        return Joules()
    byte = results.byte_energy.get(engine.threads, Joules())
    return byte.times(token_bytes(engine, depth))


def depths(engine: EngineResult, kind: str) -> list[int]:
    """The sizes N of the measured tests `kind-N`, in ascending order."""
    prefix = f"{kind}-"
    sizes = [name.removeprefix(prefix) for name in engine.samples if name.startswith(prefix)]
    return sorted(int(size) for size in sizes if size.isdecimal())


def write_results(path: Path, results: Results) -> None:
    """Write the results atomically, compressed if the name ends in `.gz`.

    Compressed numbers have six significant digits, which is finer than a clock's noise.
    """
    if path.suffix == ".gz":
        content = msgspec.json.encode(rounded(msgspec.to_builtins(results)))
        content = gzip.compress(content, mtime=0)  # reproducible
    else:
        content = msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"
    write_atomically(path, content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file of results whole, or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # that of a full disk has none
        raise
    finally:
        partial.unlink(missing_ok=True)


def rounded(value: Any) -> Any:
    """JSON values with six significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read_content(path: Path) -> bytes:
    """The bytes of a file of results; raises BenchError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError(
            "{path} cannot be read: {reason}", path=path, reason=error.strerror
        ) from error


def check_format(path: Path, found: int, known: int) -> None:
    """Raise BenchError unless a file of results has the format that is known."""
    if found != known:
        raise BenchError(
            "{path} has format {found}; this version of issun reads format {known}.",
            path=path,
            found=found,
            known=known,
        )


def read_results(path: Path) -> Results:
    """Read a file from `write_results`; raises BenchError for anything else."""
    content = read_content(path)
    try:
        plain = gzip.decompress(content) if content.startswith(_GZIP) else content
        found = msgspec.json.decode(as_utf8(plain), type=Results)
        datetime.fromisoformat(found.date)
    except (
        msgspec.DecodeError,
        RecursionError,
        ValueError,
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
    ) as error:
        raise BenchError(
            "{path} is not a results file: {reason}", path=path, reason=error
        ) from error
    check_format(path, found.format, FORMAT_VERSION)
    return found
