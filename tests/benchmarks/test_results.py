"""Statistics of samples by hand, and the results file."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.benchmarks import fit as fitting
from issun.benchmarks.energy import Joules
from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import (
    PUBLISHED,
    EngineResult,
    Latency,
    Machine,
    Memory,
    Results,
    depths,
    energy_limit,
    latency,
    read_results,
    share_of_limit,
    speed,
    stats,
    token_bytes,
    write_results,
)
from issun.benchmarks.sizes import gigabytes, parse_size
from issun.runtime import ParameterError
from issun.runtime.decoding.latency import Percentiles


def made_up(*engines: EngineResult) -> Results:
    machine = Machine(
        cpu="<b>CPU</b>", flags=["avx2"], cores=2, memory_bytes=8 * 10**9, system="x", python="3"
    )
    shape = {"n_layer": 2, "n_embd": 8, "n_head": 2, "n_inner": 32, "n_positions": 1000}
    return Results(
        date="2026-01-02T03:04:05+00:00",
        issun="1",
        commit="abc",
        machine=machine,
        checkpoint="c",
        parameters=1,
        shape=shape | {"vocab_size": 10},
        seed=0,
        bandwidth={2: [9e9, 10e9, 11e9]},
        engines=list(engines),
    )


def engine(name: str = "a", **more: object) -> EngineResult:
    return EngineResult(name=name, label=name, threads=2, **more)  # type: ignore[arg-type]


def test_stats_by_hand() -> None:
    assert stats([4, 1, 2, 9]) == (4, 4.0, 3.0, pytest.approx((38 / 3) ** 0.5), 1)
    assert stats([5]) == (1, 5, 5, 0, 5)


def test_speeds_are_tokens_divided_by_the_median() -> None:
    measured = engine(
        samples={"prefill-128": [2, 1, 4], "cold-128": [8], "decode-0": [0.5, 0.1, 1]}
    )
    assert speed(measured, "prefill-128") == 64
    assert speed(measured, "cold-128") == 16
    assert speed(measured, "decode-0") == 2
    assert speed(measured, "decode-128") is None
    assert depths(measured, "decode") == [0]
    assert depths(measured, "prefill") == [128]


def test_the_share_of_the_limit() -> None:
    """4 tokens/s, each reading 1 GB and 100 tokens of 5 MB, use 6 of 10 GB/s."""
    measured = engine(
        samples={"decode-100": [0.25]}, weight_bytes=1_000_000_000, kv_bytes=5_000_000
    )
    assert token_bytes(measured, 100) == 1_500_000_000
    assert share_of_limit(made_up(), measured, 100) == pytest.approx(0.6)
    assert share_of_limit(made_up(), engine(samples={"decode-100": [1]}), 100) is None


def test_latency_by_hand() -> None:
    """ITLs of 0.1 to 1.0 s: the 90th percentile is between the ninth and the tenth."""
    tenths = [tenth / 10 for tenth in range(1, 11)]
    found = latency(engine(samples={"prefill-512": [3.0, 1.0, 2.0], "decode-128": tenths[::-1]}))
    assert found.ttft == {512: Percentiles(2.0, pytest.approx(2.8), pytest.approx(2.98))}
    assert found.itl == {128: Percentiles(0.55, pytest.approx(0.91), pytest.approx(0.991))}
    assert found.tpot == {128: pytest.approx(0.55)}
    assert found.throughput == {128: pytest.approx(1 / 0.55)}
    assert latency(engine()) == Latency({}, {}, {}, {})


def test_the_limit_of_energy_is_that_of_reading() -> None:
    """1.5 GB at 0.2 nJ a byte are 0.3 J; what cannot be read stays unknown, and is not 0."""
    measured = engine(weight_bytes=1_000_000_000, kv_bytes=5_000_000)
    results = made_up(measured)
    results.byte_energy = {2: Joules(package=2e-10)}
    assert energy_limit(results, measured, 100) == Joules(package=pytest.approx(0.3))
    assert energy_limit(results, engine(), 100) == Joules()
    assert energy_limit(made_up(), measured, 100) == Joules()


def test_unreadable_energy_is_null_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_results(path, made_up(engine(energy={256: Joules()})))
    content = json.loads(path.read_bytes())
    assert content["engines"][0]["energy"]["256"] == {"package": None, "dram": None}
    assert content["idle"] == {"package": None, "dram": None}


def test_a_file_round_trips(tmp_path: Path) -> None:
    found = made_up(engine(memory={256: Memory(peak=5)}, samples={"load": [1.5]}))
    path = tmp_path / "r.json"
    write_results(path, found)
    assert read_results(path) == found
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_a_compressed_file_round_trips(tmp_path: Path) -> None:
    found = made_up(engine(samples={"load": [1.5] * 1000}))
    path = tmp_path / "r.json.gz"
    write_results(path, found)
    assert read_results(path) == found
    assert path.stat().st_size < 1_000
    first = path.read_bytes()
    write_results(path, found)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"format": 1}', b"{", b"\x1f\x8b", gzip.compress(b"{}", mtime=0)[:-9]],
)
def test_an_invalid_results_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"r\.json is not a results file"):
        read_results(path)


@pytest.mark.parametrize(
    ("of_engine", "changes"),
    [
        (False, {"shape": {}}),
        (False, {"shape": {"n_positions": 0}}),
        (False, {"bandwidth": {"2": []}}),
        (False, {"bandwidth": {"2": [0.0]}}),
        (False, {"bandwidth": {"0": [1e9]}}),
        (False, {"parameters": 10**400}),
        (False, {"parameters": -1}),
        (False, {"new_tokens": -8}),
        (False, {"date": "yesterday"}),
        (True, {"samples": {"decode-0": []}}),
        *((True, {"samples": {"decode-0": [0.1, value]}}) for value in (0.0, -1.0, 1e308, 1e-310)),
        *(
            (True, {"samples": {name: [1.0]}})
            for name in ("prefill-²", "prefill-0", "cold-" + "9" * 50)
        ),
        (True, {"memory": {"-5": {"peak": 100}}}),
        (True, {"memory": {"5": {"peak": -100}}}),
        (True, {"memory": {"5": {"peak": 10**400}}}),
        (True, {"rounds": -1}),
        (True, {"kv_bytes": 10**30}),
    ],
    ids=str,
)
def test_values_that_no_run_has_are_refused(
    tmp_path: Path, of_engine: bool, changes: dict[str, object]
) -> None:
    content = msgspec.to_builtins(made_up(engine(samples={"decode-0": [1.0]})), str_keys=True)
    (content["engines"][0] if of_engine else content).update(changes)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BenchError, match=r"r\.json is not a results file") as caught:
        read_results(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("deep", ["[" * 10**5 + "]" * 10**5, "1" * 5000])
def test_unknown_fields_cannot_break_the_reader(tmp_path: Path, deep: str) -> None:
    path = tmp_path / "r.json"
    write_results(path, made_up())
    path.write_text(path.read_text(encoding="utf-8").replace("{", f'{{"x": {deep},', 1))
    with contextlib.suppress(BenchError):
        read_results(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_results(path, msgspec.structs.replace(made_up(), format=9))
    with pytest.raises(BenchError, match="format 9"):
        read_results(path)
    with pytest.raises(BenchError, match="cannot be read"):
        read_results(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("1.5 gib", 3 * 2**29), ("800MB", 8 * 10**8), ("7", 7), ("1KiB", 1024)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "0", "2TB", "1,5GB", "二GB", "1e9", "9" * 400, "9" * 20]
)
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ParameterError, match="not an amount of memory"):
        parse_size(text)


def test_nothing_may_be_reserved() -> None:
    assert parse_size("0MB", least=0) == 0
    with pytest.raises(ParameterError, match="not an amount of memory"):
        parse_size("lots", least=0)


@given(st.integers(1, 10**13))
def test_formatted_sizes_are_close(size: int) -> None:
    shown = parse_size(gigabytes(size).replace(",", "")) if size >= 10**6 else size
    assert shown == pytest.approx(size, rel=0.5)


def two_contexts(name: str, short: int, long: int, decode: float = 0.1) -> EngineResult:
    memory = {200: Memory(peak=short), 700: Memory(peak=long)}
    return engine(name, memory=memory, samples={"decode-128": [decode]})


def test_fit_interpolates_the_measured_peaks() -> None:
    """800 MB and 1 MB per token: 1,000 tokens need 1.8 GB; 1.5 GB minus 0.2 are enough for 500."""
    found = made_up(two_contexts("a", 1000 * 10**6, 1500 * 10**6))
    (one,) = fitting.fit(found, 1500 * 10**6, reserve=200 * 10**6)
    assert one.full == pytest.approx(1800 * 10**6)
    assert one.context == 500


def test_the_longest_context_comes_first_then_the_fastest() -> None:
    small, fast = (
        two_contexts("small", 10**8, 10**8 + 500),
        two_contexts("fast", 10**8, 10**8, 0.01),
    )
    huge = two_contexts("huge", 5 * 10**9, 6 * 10**9)
    found = made_up(huge, small, fast, engine("unmeasured"))
    fits = fitting.fit(found, 2 * 10**9)
    assert [(f.engine.name, f.context) for f in fits] == [
        ("fast", 1000),
        ("small", 1000),
        ("huge", 0),
    ]


def test_nothing_fits_or_nothing_is_measured() -> None:
    found = made_up(two_contexts("huge", 5 * 10**9, 6 * 10**9))
    assert [f.context for f in fitting.fit(found, 10**9)] == [0]
    with pytest.raises(BenchError, match="two context lengths"):
        fitting.fit(made_up(engine()), 10**9)


@pytest.mark.parametrize(("ram", "best"), [(4, "issun-int8-kv8"), (2, "issun-int4-kv8")])
def test_int8_is_recommended_if_int4_is_slow_and_int8_fits(ram: int, best: str) -> None:
    fits = fitting.fit(read_results(PUBLISHED), ram * 10**9)
    assert fitting.recommended(fits, slow_int4=False) is fits[0]
    assert fitting.recommended(fits, slow_int4=True).engine.name == best
