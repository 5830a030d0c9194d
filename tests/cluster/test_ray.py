"""`issun batch --ray` on a cluster of three nodes on this machine, whose parts are killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from issun.benchmarks.asking import Evaluation
from issun.benchmarks.evaluation import evaluate_bundle
from issun.benchmarks.questions import read_table
from issun.cluster.batch import BatchOptions, run_batch
from issun.cluster.loading import LoadOptions
from tests.cluster.conftest import Run, make_rows, write_rows
from tests.cluster.nodes import Nodes, running_nodes
from tests.needs import posix

pytest.importorskip("ray", reason="needs Ray: make cluster")
pytestmark = posix


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with running_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "in.jsonl", make_rows(300, 40))


@pytest.fixture(scope="module")
def expected(source: Path, exact: Path) -> bytes:
    target = source.with_name("expected.jsonl")
    run_batch(BatchOptions(source=source, target=target, bundle=exact, workers=2))
    return target.read_bytes()


def disturb(nodes: Nodes, victim: str, run: Run, journal: Path, rows: int) -> None:
    run.wait_for(journal, 1 + rows)
    if victim == "worker":
        for worker in nodes.workers()[:1]:
            worker.kill()
    elif victim == "node" and run.running:
        nodes.kill_node(0)
    elif victim == "driver" and run.running:
        run.signal(9)


@pytest.fixture
def disturbed(
    tmp_path: Path, nodes: Nodes, source: Path, exact: Path, start: Callable[..., Run]
) -> Callable[[str, int], bytes]:
    """`disturbed(victim, rows)`: the output if a part is killed after `rows` rows."""
    target = tmp_path / "out.jsonl"
    command = (source, "-o", target, "--bundle", exact, "--ray", nodes.address, "--slots", "4")

    def run(victim: str, rows: int) -> bytes:
        first = start(*command)
        disturb(nodes, victim, first, tmp_path / "out.jsonl.journal", rows)
        code, err = first.end()
        if code == -9:
            code, err = start(*command).end()
        assert code == 0, err
        return target.read_bytes()

    return run


@pytest.mark.parametrize("victim", ["nobody", "worker", "node", "driver"])
def test_a_kill_loses_and_repeats_nothing(
    disturbed: Callable[[str, int], bytes], expected: bytes, victim: str
) -> None:
    assert disturbed(victim, 60) == expected


def test_an_evaluation_gives_the_same_answers(nodes: Nodes, exact: Path) -> None:
    evaluation = Evaluation(table=read_table(), samples=70, max_new_tokens=4)
    reports = [
        evaluate_bundle(evaluation, LoadOptions(bundle=exact), **options)
        for options in ({"ray": nodes.address}, {"workers": 1})
    ]
    remote, local = ([(row.verdicts, row.answers) for row in report.rows] for report in reports)
    assert remote == local
    assert len(remote) == 4


def test_an_address_without_a_cluster(
    tmp_path: Path, source: Path, start: Callable[..., Run]
) -> None:
    code, err = start(source, "-o", tmp_path / "out.jsonl", "--ray", "127.0.0.1:1").end()
    assert code == 2
    assert err.endswith("error: There is no Ray cluster at 127.0.0.1:1: Connection refused\n")
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_a_worker_does_not_have(
    tmp_path: Path, nodes: Nodes, source: Path, exact: Path, start: Callable[..., Run]
) -> None:
    run = start(
        source, "-o", tmp_path / "out.jsonl", "--ray", nodes.address, "--bundle", exact,
        "--threads", "1", "--slots", "100000",
    )  # fmt: skip
    code, err = run.end()
    assert (code, err.count("\n")) == (2, 1), err
    assert "100000 slots" in err
