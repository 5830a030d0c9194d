"""Tables and ratios from invented samples, computed by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec

from issun.benchmarks import tables
from issun.benchmarks.compare import compare
from issun.benchmarks.energy import Joules
from issun.benchmarks.measured import EngineResult, Memory, Results, read_results
from issun.benchmarks.report import render
from tests.benchmarks.test_results import made_up


def fast(**changes: object) -> EngineResult:
    return msgspec.structs.replace(
        EngineResult(
            name="issun-int8",
            label="issun int8",
            threads=2,
            settings="`issun export`; <b>bold</b>",
            versions={"onnxruntime": "1.32.0"},
            disk_bytes=1_300_000_000,
            weight_bytes=1_000_000_000,
            conversion=Memory(seconds=24.4, peak=272_000_000),
            memory={
                256: Memory(peak=1_500_000_000, anonymous=1_300_000_000),
                1000: Memory(peak=1_600_000_000, anonymous=1_400_000_000),
            },
            samples={
                "load-first": [3.0],
                "load": [1.0, 2.0, 1.0],
                "cold-128": [1.0],
                "prefill-128": [0.5, 0.25, 0.25],
                "decode-0": [0.1],
                "decode-128": [0.2, 0.1, 0.3],
                "turn-reuse": [0.5],
            },
        ),
        **changes,
    )


def slow(**changes: object) -> EngineResult:
    return msgspec.structs.replace(
        EngineResult(
            name="torch-float32",
            label="torch float32",
            threads=2,
            versions={"torch": "2.13.0"},
            disk_bytes=5_200_000_000,
            conversion=Memory(seconds=0.2, peak=30_000_000),
            memory={
                1000: Memory(
                    peak=6_400_000_000,
                    anonymous=6_000_000_000,
                )
            },
            samples={"prefill-128": [2.0], "decode-128": [0.4]},
        ),
        **changes,
    )


def crashed() -> EngineResult:
    return EngineResult(
        name="llama.cpp-q8_0",
        label="llama.cpp Q8_0",
        threads=2,
        status="crashed",
        reason="killed by SIGILL | <b>AMX</b>",
    )


def found() -> Results:
    return made_up(fast(), slow(), crashed())


def test_markdown_by_hand() -> None:
    lines = tables.markdown(found()).splitlines()
    assert lines[0] == (
        "2026-01-02, <b>CPU</b> (avx2), 2 threads, onnxruntime 1.32.0, Python 3; "
        "read bandwidth 10.0 GB/s with 2 threads."
    )
    header, _, *rows = lines[2:]
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    first = dict(zip(columns, (c.strip() for c in rows[0].strip("|").split("|")), strict=True))
    assert first == {
        "engine": "issun int8",
        "on disk": "1.30 GB",
        "conversion": "24 s",
        "conversion peak": "272 MB",
        "load first / later": "3.0 s / 1.0 s",
        "prefill 128": "512.0",
        "decode after 0": "10.0",
        "decode after 128": "5.0",
        "bandwidth used": "50%",
        "peak memory (anonymous)": "1.60 GB (1.40 GB)",
    }
    assert rows[1].startswith("| torch float32 | 5.20 GB | - | - | - / - | 64.0 | - | 2.5 | - |")
    assert rows[2].startswith("| llama.cpp Q8_0 | crashed: killed by SIGILL \\| <b>AMX</b> |")
    assert len(rows) == 3


def test_all_measured_prompt_lengths_are_columns() -> None:
    measured = fast(samples={"prefill-32": [0.5], "prefill-900": [1.0]})
    header, _, row = tables.markdown(made_up(measured)).splitlines()[2:]
    assert "| prefill 32 | prefill 900 |" in header
    assert "| 64.0 | 900.0 |" in row


def test_labels_break_neither_rows_nor_terminals() -> None:
    bad = "a|b\n\x1b[31mc\x9b\u202e"
    engines = (
        fast(label=bad, samples={"decode-0": [1e-9]}),
        fast(label=bad, name="other", status="failed", reason=bad),
    )
    results = made_up(*engines)
    results.machine.cpu = bad
    *_, row, failure, _, _ = tables.markdown(results).splitlines()
    assert row.startswith("| a\\|b [31mc | 1.30 GB |")
    assert failure.startswith("| a\\|b [31mc | failed: a\\|b [31mc |  |")
    texts = tables.markdown(results), tables.terminal(results), compare(results, results)
    for line in "\n".join(texts).split("\n"):
        assert line.isprintable(), line
    assert "a|b [31mc, 2 threads" in tables.terminal(results)
    page = render(results, [])
    assert "<td>a|b [31mc</td>" in page


def test_decoding_faster_than_the_bandwidth_is_reported() -> None:
    """Reading 1 GB and 100 tokens of 5 MB in an eighth of a second would need 12 of 10 GB/s."""
    ahead = fast(weight_bytes=10**9, kv_bytes=5 * 10**6, samples={"decode-100": [0.125]})
    reported = (
        "The bandwidth measurement failed: issun int8 reaches 120% of it when decoding after 100 "
        "tokens."
    )
    assert tables.markdown(made_up(ahead, slow())).splitlines()[-2:] == ["", reported]
    assert tables.terminal(made_up(ahead, slow())).splitlines()[-2:] == ["", reported]
    assert "measurement failed" not in tables.markdown(found()) + tables.terminal(found())


def test_memory_after_the_answer_is_shown() -> None:
    resting = fast(memory={1000: Memory(peak=16 * 10**8, resting=3 * 10**8)})
    assert "1.60 GB peak (anonymous 0 MB, file 0 MB), 300 MB afterwards" in tables.terminal(
        made_up(resting)
    )
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(made_up(resting)))))
    (shown,) = (row for row in rows if row["test"] == "memory-resting-1000")
    assert (shown["unit"], shown["median"]) == ("bytes", str(3 * 10**8))
    assert "afterwards" not in tables.terminal(found())  # unknown


def test_energy_stands_beside_its_limit() -> None:
    """A token after 1,000 tokens reads 1 GB, at 0.3 nJ a byte."""
    measured = fast(weight_bytes=10**9, kv_bytes=0, energy={1000: Joules(package=1.25)}, samples={})
    results = made_up(measured)
    results.byte_energy = {2: Joules(package=3e-10)}
    assert (
        "energy 1000    package 1.25 J a token; reading weights and KV cache alone takes package "
        "0.3 J" in tables.terminal(results)
    )
    unreadable = tables.terminal(made_up(fast(energy={256: Joules(), 1000: Joules()})))
    assert unreadable.count("energy         cannot be measured on this machine") == 1
    assert " 0 J" not in unreadable
    partly = tables.terminal(made_up(fast(energy={256: Joules(), 1000: Joules(package=1.0)})))
    assert "energy 1000    package 1 J a token" in partly
    assert "energy 256" not in partly


def test_json_has_the_latency_and_can_be_read_as_results(tmp_path: Path) -> None:
    text = tables.json_text(found())
    shown = json.loads(text)["engines"][0]["latency"]
    assert shown["ttft"]["128"] == {"p50": 0.25, "p90": 0.45, "p99": 0.495}
    assert shown["throughput"] == {"0": 10.0, "128": 5.0}
    assert round(shown["tpot"]["128"], 9) == 0.2
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    assert read_results(tmp_path / "r.json") == found()


def test_threads_are_a_column_only_if_they_differ() -> None:
    assert "| threads |" not in tables.markdown(found())
    assert "| threads |" in tables.markdown(made_up(fast(), fast(threads=1)))


def test_csv_can_be_parsed() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(found()))))
    by_test = {(row["engine"], row["test"]): row for row in rows}
    decode = by_test["issun-int8", "decode-128"]
    assert decode["unit"] == "s"
    assert decode["samples"] == "3"
    assert round(float(decode["mean"]), 12) == float(decode["median"]) == 0.2
    assert round(float(decode["deviation"]), 12) == 0.1
    assert float(decode["minimum"]) == 0.1
    assert by_test["issun-int8", "memory-peak-1000"]["median"] == "1600000000"
    assert by_test["issun-int8", "conversion"]["median"] == "24.4"
    assert by_test["llama.cpp-q8_0", "disk"]["median"] == "0"


def test_the_terminal_shows_every_test_and_every_failure() -> None:
    lines = [line.strip() for line in tables.terminal(found()).splitlines()]
    assert "load           1,000 ms ± 43% (3 samples)" in lines
    assert "TTFT 128       p50 250.0  p90 450.0  p99 495.0 ms  prefill 512.0 tokens/s" in lines
    assert "ITL 128        p50 200.0  p90 280.0  p99 298.0 ms  3 tokens" in lines
    assert "TPOT 128       200.0 ms  throughput 5.0 tokens/s" in lines
    assert "bandwidth 128  50% of what this machine can read" in lines
    assert "crashed: killed by SIGILL | <b>AMX</b>" in lines
    assert max(map(len, lines[1:])) <= 110


def test_an_empty_engine_has_dashes() -> None:
    text = tables.markdown(made_up(EngineResult(name="x", label="x", threads=2)))
    assert text.splitlines()[-1] == "| x | - | - | - | - / - | - | - |"


def test_ratios_to_an_older_run() -> None:
    """issun is twice as fast as before, torch 1.6 times: their ratio changed by 25 %."""
    old = made_up(
        fast(samples={"decode-128": [0.4], "prefill-128": [0.25], "prefill-512": [1.0]}),
        slow(samples={"decode-128": [0.64]}),
        EngineResult(name="gone", label="gone", threads=2),
    )
    new = made_up(fast(samples={"decode-128": [0.2], "prefill-128": [0.25]}), slow(), crashed())
    text = compare(new, old)
    assert "issun int8, 2 threads, decode-128: 5.0 / 2.5 = 2.000" in text
    assert "torch float32, 2 threads, decode-128: 2.5 / 1.6 = 1.600" in text
    assert "issun int8, 2 threads, prefill-128: 512.0 / 512.0 = 1.000" in text
    assert "issun int8, 2 threads, prefill-512: only in the old results" in text
    assert "torch float32, 2 threads, prefill-128: only in the new results" in text
    assert "issun int8, 2 threads, memory at 1000: 1.60 GB / 1.60 GB = 1.000" in text
    assert "llama.cpp Q8_0, 2 threads: only in the new results" in text
    assert "gone, 2 threads: only in the old results" in text
    assert text.endswith(
        "Ratios between engines within 10%: 0 of 1.\n"
        "Largest change of a ratio between engines: 25.0% "
        "(decode-128, 2 threads, issun int8 to torch float32)."
    )


def test_different_numbers_of_threads_are_not_compared() -> None:
    """With 1 thread issun takes twice as long, and nothing else changed: 100 %."""
    old = made_up(fast(threads=1), slow(threads=1), fast(), slow())
    halved = fast(threads=1, samples={"decode-128": [0.4]})
    text = compare(made_up(halved, slow(threads=1), fast(), slow()), old)
    assert text.endswith(
        "Ratios between engines within 10%: 2 of 3.\n"  # and both tests with 2 threads
        "Largest change of a ratio between engines: 100.0% "
        "(decode-128, 1 threads, torch float32 to issun int8)."
    )


def test_memory_of_only_one_run_is_named() -> None:
    old = fast(memory={256: Memory(peak=1), 1000: Memory()})
    text = compare(made_up(fast(memory={1000: Memory(peak=5)})), made_up(old))
    assert "issun int8, 2 threads, memory at 256: only in the old results" in text
    assert "issun int8, 2 threads, memory at 1000: only in the new results" in text


def test_long_reasons_and_unknown_tests_fit_into_a_terminal() -> None:
    broken = fast(status="crashed", reason="word " * 100, samples={"other": [1.0]})
    text = tables.terminal(made_up(broken))
    assert max(map(len, text.splitlines())) <= 110
    assert "  other " in text
