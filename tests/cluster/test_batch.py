"""`run_batch` and `issun batch` with real workers."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai.types.chat import ChatCompletion

from issun.cluster.batch import BatchOptions, run_batch
from issun.cluster.driver import Progress
from issun.cluster.errors import BatchError
from issun.cluster.generator import BatchGenerator
from issun.runtime import Adapter, Model, SamplingParams
from issun.runtime.errors import AdapterError, ParameterError
from issun.runtime.manifest import read_manifest
from tests.adapters import random_adapter
from tests.cli.conftest import issun
from tests.cluster.conftest import Run, make_rows, write_rows
from tests.conftest import Bundles
from tests.needs import posix
from tests.server.conftest import running

ROWS = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batch")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    return write_rows(folder / "in.jsonl", make_rows(ROWS))


@pytest.fixture(scope="module")
def expected(folder: Path, source: Path, exact: Path) -> bytes:
    """The output of one worker that nothing disturbs."""
    target = folder / "expected.jsonl"
    options = BatchOptions(
        source=source, target=target, bundle=exact, workers=1, slots=4, exact=True
    )
    done = run_batch(options)
    assert (done.done, done.rows) == (ROWS, ROWS)
    return target.read_bytes()


def options_for(tmp_path: Path, source: Path, bundle: Path | None, **more: Any) -> BatchOptions:
    return BatchOptions(source=source, target=tmp_path / "out.jsonl", bundle=bundle, **more)


def test_rows_are_answered_as_by_the_server(expected: bytes, exact: Path) -> None:
    lines = [json.loads(line) for line in expected.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"row {n}" for n in range(ROWS)]
    with Model.load(exact, threads=1) as model, running(model) as server:
        for row, line in zip(make_rows(ROWS), lines, strict=True):
            answer = server.post(row["url"], row["body"] | {"temperature": 0})
            status, body = line["response"]["status_code"], line["response"]["body"]
            if row["body"].get("temperature"):
                assert (status, body["error"]["param"]) == (400, "temperature")
            elif row["body"]["max_tokens"] == 0:  # nothing is sampled
                assert body["choices"] == answer.json()["choices"]
            else:
                assert status == 200
                assert body["usage"]["completion_tokens"] <= 12


@pytest.mark.parametrize("layout", [{"workers": 2}, {"workers": 3, "slots": 2}])
def test_every_number_of_workers_and_slots_gives_the_same_bytes(
    tmp_path: Path, source: Path, exact: Path, expected: bytes, layout: dict[str, int]
) -> None:
    options = options_for(tmp_path, source, exact, exact=True, **layout)
    run_batch(options)
    assert options.target.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]


@pytest.mark.slow
def test_the_seed_and_the_id_choose_the_answer(tmp_path: Path, exact: Path) -> None:
    def texts(rows: list[dict[str, Any]], seed: int) -> dict[str, str]:
        source = write_rows(tmp_path / "in.jsonl", rows)
        options = options_for(tmp_path, source, exact, seed=seed, workers=1)
        run_batch(options)
        lines = [json.loads(line) for line in options.target.read_bytes().splitlines()]
        options.target.unlink()
        return {x["custom_id"]: x["response"]["body"]["choices"][0]["text"] for x in lines}

    body = {"prompt": "山", "max_tokens": 8, "min_tokens": 8}
    rows = [
        {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": body}
        for name in "abcdef"
    ]
    first = texts(rows, 0)
    assert texts(rows[::-1], 0) == first
    assert len(set(first.values())) == 6
    assert not set(texts(rows, 1).values()) & set(first.values())


def test_simple_rows_are_answered_as_by_generate(tmp_path: Path, fuji: Path) -> None:
    rows = [{"instruction": "山は?", "input": "日本"}, {"n": 1}, {"instruction": "川は?", "n": 2}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    options = options_for(tmp_path, source, fuji, workers=1)
    assert run_batch(options).failed == 1
    lines = [json.loads(line) for line in options.target.read_text(encoding="utf-8").splitlines()]
    good = {"generated_text": "富士山です。", "finish_reason": "stop", "status": 200, "error": None}
    error = "instruction: there is neither an instruction nor a prompt."
    bad = {"generated_text": None, "finish_reason": None, "status": 400, "error": error}
    assert lines == [rows[0] | good, rows[1] | bad, rows[2] | good]


def test_a_bad_row_changes_no_other(tmp_path: Path, fuji: Path) -> None:
    body = {"messages": [{"role": "user", "content": "山は?"}]}
    request = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    link = {"instruction": "山は?", "url": "https://example.jp/1", "body": "本文"}
    source = write_rows(tmp_path / "in.jsonl", [{"custom_id": "bad"}, request, link])
    options = options_for(tmp_path, source, fuji, workers=1)
    assert run_batch(options).failed == 1
    lines = [json.loads(line) for line in options.target.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["response"]["status_code"] == 400
    ChatCompletion.model_validate(lines[1]["response"]["body"])
    assert lines[2].items() >= {**link, "generated_text": "富士山です。"}.items()
    options.target.unlink()
    write_rows(source, [{"title": "山", "body": "本文"}])
    options = options_for(tmp_path, source, fuji, workers=1, template="{body}は?")
    assert run_batch(options).failed == 0


def test_no_row_is_refused_because_of_those_beside_it(tmp_path: Path) -> None:
    rows = [
        {
            "custom_id": str(n),
            "url": "/v1/completions",
            "body": {"prompt": "山", "regex": f"{n:03d}-[0-9]{{2}}", "max_tokens": 9},
        }
        for n in range(60)
    ]
    options = options_for(tmp_path, write_rows(tmp_path / "in.jsonl", rows), None, workers=1)
    assert run_batch(replace(options, slots=60)).failed == 0


def test_more_new_tokens_than_the_most_are_refused_before_any_work(
    tmp_path: Path, fuji: Path
) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "山"}])
    options = options_for(tmp_path, source, fuji, defaults={"min_tokens": 600})
    with pytest.raises(ParameterError, match="min_new_tokens is 600, it must be at most"):
        run_batch(options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def others(tmp_path: Path, bundle: Bundles) -> dict[str, dict[str, Any]]:
    """Options of other batches, by what differs."""
    return {
        "seed": {"seed": 1},
        "sampling": {"defaults": {"temperature": 0.5}},
        "bundle": {"bundle": bundle("head-8")},
        "input": {"source": write_rows(tmp_path / "other.jsonl", make_rows(3))},
    }


def test_a_second_writer_and_another_batch_are_refused(
    tmp_path: Path, source: Path, exact: Path, expected: bytes, bundle: Bundles
) -> None:
    options = options_for(tmp_path, source, exact, workers=1, slots=2)
    refused = []

    def stop(progress: Progress) -> None:
        if progress.done and not refused:  # reported once more at the end
            for other in ({}, *others(tmp_path, bundle).values()):
                with pytest.raises(BatchError, match="Another process writes"):
                    run_batch(replace(options, **other))
                refused.append(other)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(options, report=stop)
    assert len(refused) == 5
    journal = tmp_path / "out.jsonl.journal"
    before = journal.read_bytes()
    for name, other in others(tmp_path, bundle).items():
        with pytest.raises(BatchError, match=f"of a run with another {name}"):
            run_batch(replace(options, **other))
    assert journal.read_bytes() == before
    options.target.write_text("precious", encoding="utf-8")
    with pytest.raises(BatchError, match="delete one of them"):
        run_batch(options)
    options.target.unlink()
    run_batch(options)
    assert options.target.read_bytes() == expected


def test_an_end_between_the_output_and_the_journal(
    tmp_path: Path, source: Path, exact: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_for(tmp_path, source, exact, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_batch(options)
    assert (tmp_path / "out.jsonl.journal").exists()
    run_batch(options)  # no worker starts
    assert options.target.read_bytes() == expected
    assert not (tmp_path / "out.jsonl.journal").exists()


@pytest.fixture
def disturbed(
    tmp_path: Path, source: Path, exact: Path, start: Callable[..., Run]
) -> Callable[[str, int], bytes]:
    """`disturbed(victim, rows)`: the output if a process is killed after `rows` rows."""
    target, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    command = (source, "-o", target, "--bundle", exact, "--workers", "2")

    def run(victim: str, rows: int) -> bytes:
        first = start(*command, "--slots", "2")
        first.wait_for(journal, 1 + rows)
        workers = first.workers()
        if victim == "worker" and workers:
            workers[0].kill()
        elif victim == "driver" and first.running:
            first.signal(signal.SIGKILL)
            first.end()
            _, alive = psutil.wait_procs(workers, 10)
            assert not alive, "workers outlive the driver"
            if journal.exists():
                with journal.open("ab") as file:  # as if it had died while it wrote
                    file.write(b'3 200 {"id": "ba')
            first = start(*command, "--slots", "3")
        code, err = first.end()
        assert code == 0, err
        return target.read_bytes()

    return run


@posix
@pytest.mark.sampled
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_kill_loses_and_repeats_nothing(
    disturbed: Callable[[str, int], bytes], expected: bytes, victim: str
) -> None:
    assert disturbed(victim, 8) == expected


@pytest.mark.slow
@posix
def test_ctrl_c_keeps_what_is_answered(
    tmp_path: Path, source: Path, exact: Path, expected: bytes, start: Callable[..., Run]
) -> None:
    target, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    run = start(source, "-o", target, "--bundle", exact, "--workers", "2", "--slots", "2")
    run.wait_for(journal, 8)
    run.signal(signal.SIGINT)
    code, err = run.end()
    assert code == 130
    found = re.fullmatch(
        r"\[stopped; (\d+) of 48 rows are answered, and the same command continues\]\n", err
    )
    assert found, err
    assert int(found[1]) == journal.read_bytes().count(b"\n") - 1
    again = issun("batch", source, "-o", target, "--bundle", exact)
    assert (again.code, again.out) == (0, "")
    assert again.err == (
        f"{found[1]} of 48 rows were answered before.\n"
        f"48 rows are in {target}, 4 of them with errors.\n"
    )
    assert target.read_bytes() == expected


@pytest.mark.slow
@posix
def test_a_full_disk_stops_the_run_with_one_error(
    tmp_path: Path, source: Path, exact: Path, expected: bytes, start: Callable[..., Run]
) -> None:
    """A limit of the size of files stands for a disk that is full."""
    import resource

    target, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    command = (source, "-o", target, "--bundle", exact, "--workers", "2", "--slots", "2")
    code, err = start(*command, preexec_fn=limit).end()
    assert (code, err) == (
        2,
        f"error: {journal} cannot be written: File too large. The answered rows are kept: solve "
        "that, then repeat the command.\n",
    )
    kept = journal.read_bytes().count(b"\n") - 1
    assert kept > 8
    assert run_batch(options_for(tmp_path, source, exact)).done == ROWS
    assert target.read_bytes() == expected


def test_an_existing_output_is_kept(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious", encoding="utf-8")
    with pytest.raises(BatchError, match=r"out.jsonl exists already"):
        run_batch(options_for(tmp_path, source, None))
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]


def test_the_input_is_not_called_an_old_output(tmp_path: Path, source: Path) -> None:
    """It must not be deleted."""
    (tmp_path / "link.jsonl").symlink_to(source)
    for target in (source, tmp_path / "link.jsonl"):
        with pytest.raises(BatchError, match="is the input: name another file for the output"):
            run_batch(BatchOptions(source=source, target=target))
    assert not list(tmp_path.glob("*.journal"))


def test_exact_refuses_what_rounds_otherwise(tmp_path: Path, source: Path) -> None:
    with pytest.raises(BatchError, match="--exact needs a bundle of precision int8"):
        run_batch(options_for(tmp_path, source, None, exact=True))


def test_a_bundle_that_cannot_be_loaded(tmp_path: Path, source: Path, exact: Path) -> None:
    result = issun(
        "batch", source, "-o", tmp_path / "out.jsonl", "--bundle", exact, "--kv-cache", "float16"
    )
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "kv_cache is 'float16', it must be one of float32, int8." in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--template", "{"], "The template is malformed"),
        (["--template", "{a}"], "has whole requests, which need no template."),
        (["--temperature", "3"], "temperature"),
        (["--workers", "0"], "workers is 0, it must be a whole number of at least 1."),
        (["--bundle", "nowhere"], "There is no folder nowhere."),
        (["-o", "missing/out.jsonl"], "or its folder does not exist: name a file."),
    ],
)
def test_what_is_refused(tmp_path: Path, source: Path, arguments: list[str], message: str) -> None:
    result = issun("batch", source, "-o", tmp_path / "out.jsonl", *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err
    assert not list(tmp_path.iterdir())
    assert not Path("missing").exists()


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    for header, template, message in (
        ("title,text", None, "has no column instruction or prompt; it has title, text"),
        ("title,text", "{titel}", "has no column titel; it has title, text"),
        ("prompt,status", None, "has a column status, which the output adds: rename it"),
        ("prompt,prompt", None, "has several columns 'prompt': rename them"),
    ):
        source.write_text(f"{header}\na,b\n", encoding="utf-8")
        options = BatchOptions(source=source, target=tmp_path / "out.csv", template=template)
        with pytest.raises(BatchError, match=message):
            run_batch(options)


def test_rows_that_name_no_model_are_answered_with_the_adapter(tmp_path: Path, exact: Path) -> None:
    adapter = Adapter(random_adapter(exact, tmp_path / "a1", size=0.5))
    params = SamplingParams(temperature=0, max_new_tokens=8)
    with Model.load(exact, threads=1, adapters=[adapter]) as model:
        texts = [model.generate("日本の山", params, adapter=name).text for name in (None, "a1")]
    assert texts[0] != texts[1]
    body = {"prompt": "日本の山", "max_tokens": 8, "temperature": 0}
    bodies = [body, body | {"model": read_manifest(exact).source.name}]  # that is the bundle alone
    requests = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": given}
        for n, given in enumerate(bodies)
    ]
    source = write_rows(tmp_path / "in.jsonl", requests)
    run_batch(options_for(tmp_path, source, exact, adapter=adapter, workers=1))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    answers = [line["response"]["body"] for line in lines]
    assert [answer["choices"][0]["text"] for answer in answers] == texts[::-1]
    with closing(BatchGenerator(exact, params, adapter=str(adapter.path))) as generator:
        assert list(generator({"prompt": ["日本の山"]})["generated_text"]) == texts[1:]


def test_a_journal_of_another_adapter_is_refused(tmp_path: Path, exact: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", make_rows(4))
    options = options_for(tmp_path, source, exact, workers=1)
    one, other = (random_adapter(exact, tmp_path / name, seed=i) for i, name in enumerate("ab"))

    def stop(progress: Progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(replace(options, adapter=Adapter(one)), report=stop)
    with pytest.raises(BatchError, match="bundle"):
        run_batch(replace(options, adapter=Adapter(other)))
    with pytest.raises(AdapterError, match="made for another bundle"):
        run_batch(replace(options, bundle=None, adapter=Adapter(one)))
