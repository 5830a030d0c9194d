"""`issun bench`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks import suite
from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import EngineResult, Results, read_results, write_results
from issun.cli.bench import app
from tests.benchmarks.test_results import made_up, two_contexts
from tests.benchmarks.test_servers import Fake, plain, serving
from tests.benchmarks.test_tables import found
from tests.cli.conftest import environment, issun
from tests.needs import posix

QUICK = (
    *("--rounds", "1", "--prefill", "8", "--decode", "0,8", "--memory", "20,40"),
    *("--new-tokens", "2", "--threads", "1"),
)


@pytest.fixture(scope="module")
def measured(fuji: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "r.json"
    result = issun("bench", fuji, *QUICK, "-o", path)
    assert result.code == 0, result.err
    return path


@pytest.mark.slow
def test_a_bundle_is_measured_and_kept(measured: Path) -> None:
    (entry,) = read_results(measured).engines
    assert (entry.name, entry.status) == ("bundle", "measured")
    assert set(entry.memory) == {20, 40}
    assert len(entry.samples["decode-8"]) == 2


@pytest.mark.slow
def test_memory_can_be_left_out(fuji: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    result = issun("bench", fuji, *QUICK, "--memory", "none", "-o", path)
    assert result.code == 0, result.err
    (entry,) = read_results(path).engines
    assert entry.memory == {}
    assert set(entry.samples) == {
        "load-first",
        "load",
        "cold-8",
        "prefill-8",
        "decode-0",
        "decode-8",
    }


@pytest.mark.slow
def test_going_on_adds_rounds_and_prints_csv(fuji: Path, measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(measured.read_bytes())
    quick = (
        "2" if part == "1" and QUICK[i - 1] == "--rounds" else part for i, part in enumerate(QUICK)
    )
    result = issun("bench", "run", fuji, *quick, "-o", path, "--resume", "--format", "csv")
    assert result.code == 0, result.err
    rows = {row["test"]: row for row in csv.DictReader(io.StringIO(result.out))}
    assert rows["prefill-8"]["samples"] == "2"
    tests = "".join(f"  {test}\n" for test in ("load", "warm-0", "cold-8", "warm-8"))
    assert re.sub(r"took \d:\d\d", "took 0:00", result.err) == (
        f"round 2 of 2: bundle, 1 threads (estimating the time)\n{tests}took 0:00\n"
        f"All measurements are in {path}.\n"
    )


@pytest.mark.slow
def test_total_and_remaining_time_are_printed(fuji: Path, tmp_path: Path) -> None:
    result = issun("bench", fuji, *QUICK, "-o", tmp_path / "r.json")
    assert re.search(r"^memory at 20 .* \(estimating the time\)$", result.err, re.M)
    time = r"\(about \d+:\d\d in all, \d+:\d\d left\)"
    assert re.search(rf"^memory at 40 tokens: bundle, 1 threads {time}$", result.err, re.M)
    assert re.search(rf"^round 1 of 1: bundle, 1 threads {time}$", result.err, re.M)
    assert re.search(r"^took \d+:\d\d$", result.err, re.M)


def test_the_table_ends_with_a_verdict(fuji: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "r.json")
    english = issun("bench", fuji, *QUICK, *output).out.splitlines()[-1]
    assert re.match(
        r"bundle: [\d,.]+ tokens/s after a 8-token prompt \(ITL p50 \d+ ms\)\.", english
    )
    japanese = issun("bench", fuji, *QUICK, *output, "--resume", ISSUN_LANG="ja").out
    assert re.match(r"bundle: 8 トークンのプロンプトの後", japanese.splitlines()[-1])


def test_llama_bench_lines(measured: Path, fuji: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(measured.read_bytes())
    result = issun("bench", fuji, *QUICK, "-o", path, "--resume", "--format", "llama-bench")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["n_prompt"], line["n_gen"], line["n_depth"]) for line in lines] == [
        (8, 0, 0),
        (0, 2, 0),
        (0, 2, 8),
    ]


@pytest.mark.slow
def test_what_is_there_is_not_replaced(fuji: Path, measured: Path) -> None:
    before = measured.read_bytes()
    result = issun("bench", fuji, *QUICK, "-o", measured)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: {measured} exists: resume it with --resume, or name another file.\n"
    )
    assert measured.read_bytes() == before


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing/here",), "There is no folder"),
        (("--prefill", "many"), "prefill is 'many': give comma-separated numbers from 1 to ∞"),
        (("--decode", "-1"), "decode is '-1': give comma-separated numbers from 0"),
        (("--prefill", "512"), "prefill is 512, it must be at most 511 to fit into the context."),
        *(
            ((f"--{name}=",), f"{name} is ''")
            for name in ("threads", "prefill", "decode", "memory")
        ),
        (("--kv-cache=",), "kv_cache is '', it must be one of float32, int8."),
        (("--kv-cache", "float32, int4"), "kv_cache is 'int4'"),
        (("--url", "http://x", "--prefill=", "--kv-cache="), "leave out --kv-cache, --prefill."),
        (("--seed=-1",), "seed is -1, it must be a whole number from 0 to "),
        (("--new-tokens", "511"), "new-tokens is 511, it must be a whole number from 1 to 510."),
        (("--threads", "0"), "threads is '0': give comma-separated numbers from 1 to 1,024"),
        (("--rounds", "0"), "rounds is '0'"),
        (("--format", "xml"), "format is 'xml', it must be one of terminal, markdown, csv, json, "),
        (("--url", "http://x", "--checkpoint", "c"), "measures servers: leave out --checkpoint."),
        (("b", "--url", "http://x", "--prefill", "9", "--resume"), "bundles, --resume, --prefill."),
        (("--model", "m", "--timeout", "9"), "Only a server has --model, --timeout: name it with"),
        (("--engines", "torch"), "Only a checkpoint needs --engines: name it with --checkpoint."),
        (("--url", "http://x", "--format", "csv"), "it must be one of terminal, markdown, json."),
        (("--url", "http://x", "--concurrency", "0"), "concurrency is '0': give comma-separated"),
        (("--url", "http://x", "--timeout", "0"), "timeout is 0.0, it must be a number above 0"),
        (("--url", "http://x", "--timeout", "nan"), "timeout is nan, it must be a number above 0"),
        (("--url", "http://x", "--timeout", "inf"), "timeout is inf, it must be a number above 0"),
        (("--url", "localhost:8000"), "'localhost:8000' is no URL of a server: write http://HOST"),
        (("--url", "http://127.0.0.1:1"), "http://127.0.0.1:1 does not answer: "),
        (("--compare", "nothing.json"), "nothing.json cannot be read"),
        (("--checkpoint", "nothing"), "nothing"),
        (("-o", "no/such/folder/r.json"), "name a file"),
        (("--url", "http://x", "-o", "no/such/folder/r.json"), "name a file"),
    ],
)
def test_refusals(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    output = () if "-o" in arguments else ("-o", str(tmp_path / "r.json"))
    result = issun("bench", *arguments, *output)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@posix
def test_ctrl_c_keeps_what_was_measured(fuji: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    quick = (
        "9" if part == "1" and QUICK[i - 1] == "--rounds" else part for i, part in enumerate(QUICK)
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "issun.cli.main", "bench", fuji, *quick, "-o", path],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 3"):
            break
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(30) == 130
    assert f"[stopped: the measurements so far are in {path}; resume with --resume]" in rest
    assert "Traceback" not in rest
    assert read_results(path).engines[0].rounds == 2


@posix
def test_ctrl_c_keeps_what_was_measured_of_a_server(tmp_path: Path) -> None:
    """It does not wait for answers, either."""

    def slow(body: dict[str, Any], write: Callable[[str], None]) -> None:
        if "章" in body["messages"][0]["content"] and len(fake.bodies) > 2:
            time.sleep(60)
        plain(body, write)

    fake, path = Fake(slow), tmp_path / "r.json"
    with serving(fake) as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "issun.cli.main", "bench", "run", "--url", url, "-o", path],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stderr is not None
        for line in process.stderr:
            if ", 2 clients" in line:
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            _, rest = process.communicate(timeout=20)
        finally:
            process.kill()
        assert process.returncode == 130
    assert rest == f"[stopped: the measurements so far are in {path}]\n"
    levels = json.loads(path.read_bytes())["levels"]
    assert [level["requests"] for level in levels] == [1, 0, 0, 0]


def failing(request: suite.Request, output: Path, *_: object, **__: object) -> Results:
    """A run in which all engines are skipped; their entries name what was asked for."""
    names = [*request.engines, *map(str, request.kv_caches)]
    entries = (
        EngineResult(name=n, label=n, threads=1, status="skipped", reason="r") for n in names
    )
    return made_up(*entries)


def test_a_run_that_measured_nothing_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "run", failing)
    names = ("--engines", "a, b,a", "--kv-cache", "float32, int8,int8", "--checkpoint", "c")
    with pytest.raises(BenchError, match=r"Nothing could be measured: r\.json says why"):
        app(["run", *names, "-o", "r.json", "--format", "csv"], standalone_mode=False)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["engine"] for row in rows] == ["a", "b", "float32", "int8"]


@pytest.mark.slow
def test_ratios_to_an_older_run(fuji: Path, measured: Path, tmp_path: Path) -> None:
    old = read_results(measured)
    for samples in old.engines[0].samples.values():
        samples[:] = [2 * value for value in samples]
    write_results(tmp_path / "old.json", old)
    path = tmp_path / "r.json"
    path.write_bytes(measured.read_bytes())
    result = issun(
        *("bench", fuji, *QUICK, "-o", path, "--resume", "--compare", tmp_path / "old.json")
    )
    assert result.code == 0
    ratios = [line for line in result.out.splitlines() if "prefill-8: " in line]
    assert len(ratios) == 1
    assert ratios[0].endswith(" = 2.000")


@pytest.mark.slow
def test_report_and_its_table(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_results(path, found())
    result = issun("bench", "report", path, "-o", tmp_path / "out")
    assert (result.code, result.out) == (0, f"{tmp_path / 'out' / 'report.html'}\n")
    table = issun("bench", "report", path, "--table")
    assert "| issun int8 | 1.30 GB | 24 s |" in table.out
    bad = issun("bench", "report", tmp_path)
    assert (bad.code, bad.err.count("\n")) == (2, 1)


@pytest.mark.slow
def test_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_results(path, made_up(two_contexts("small", 400 * 10**6, 900 * 10**6)))
    result = issun("bench", "fit", path, "--ram", "1GB")
    assert result.code == 0
    assert result.out == (
        "Memory: 1.00 GB, of which 500 MB stay free for other programs. "
        "Measured 2026-01-02 on <b>CPU</b>.\n"
        "\n"
        "engine  context that fits  peak at 1,000  decode after 128\n"
        "small                 300        1.20 GB     10.0 tokens/s\n"
        "\n"
        "Use small: a context of 300 tokens fits.\n"
    )
    japanese = issun("bench", "fit", path, "--ram", "1GB", ISSUN_LANG="ja").out
    assert japanese == (
        "メモリー: 1.00 GB（うち 500 MB はほかのプログラム用に空けます）。"
        "2026-01-02 に <b>CPU</b> で測定。\n"
        "\n"
        "エンジン  収まるコンテキスト  1,000 での最大メモリー  128 の後のデコード\n"
        "small                    300                 1.20 GB    10.0 トークン/秒\n"
        "\n"
        "small が適しています。300 トークンのコンテキストが収まります。\n"
    )
    tight = issun("bench", "fit", path, "--ram", "600MB", ISSUN_LANG="ja").out
    assert "収まらない" in tight
    nothing = issun("bench", "fit", path, "--ram", "600MB").out
    assert "does not fit" in nothing
    assert nothing.endswith("\nNone of the measured engines fits.\n")
    whole = issun("bench", "fit", path, "--ram", "1GB", "--reserve", "0MB").out
    assert whole.startswith("Memory: 1.00 GB, of which 0 MB stay free")
    bad = issun("bench", "fit", path, "--ram", "lots")
    assert (bad.code, bad.err) == (
        2,
        "error: 'lots' is not an amount of memory: write it like 2GB.\n",
    )


def test_what_fits_by_the_published_figures() -> None:
    result = issun("bench", "fit", "--ram", "2GB")
    assert result.code == 0
    assert "issun int4" in result.out


def test_japanese_messages(tmp_path: Path) -> None:
    result = issun("bench", "fit", tmp_path / "x", "--ram", "lots", ISSUN_LANG="ja")
    assert result.err == (
        "エラー: 'lots' はメモリーの量ではありません。2GB のように指定してください。\n"
    )


@pytest.mark.slow
def test_json_is_the_file_with_the_latency(measured: Path, fuji: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(measured.read_bytes())
    result = issun("bench", fuji, *QUICK, "-o", path, "--resume", "--format", "json")
    shown = json.loads(result.out)
    found = shown["engines"][0].pop("latency")
    assert set(found) == {"ttft", "itl", "tpot", "throughput"}
    assert shown == json.loads(path.read_bytes())
