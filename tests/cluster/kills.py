"""`python -m tests.cluster.kills [--what worker driver node] [--kills 20] [--ray]`

Kills parts of `issun batch` with SIGKILL at random moments, and compares the output of every
disturbed run with that of an undisturbed one: no line may be lost, doubled or different. Nodes are
those of a Ray cluster on this machine, and with `--ray` workers and drivers run there, too.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import psutil

from issun.benchmarks.small_tokenizers import train_tokenizer
from issun.cluster.batch import BatchOptions, run_batch
from issun.export import ExportOptions, export
from tests.checkpoints import SHAPES, write_checkpoint
from tests.cluster.conftest import Run, make_rows, write_rows
from tests.cluster.nodes import Nodes, running_nodes

KINDS = ("worker", "driver", "node")
_ROWS, _TOKENS = 300, 40
_KILLS_OF_A_RUN = 4  # few enough that no row ends three workers
_SPREAD = 0.5  # seconds from an answer to the kill: longer than a chunk takes


class Series:
    """Runs of one batch, which are disturbed; `nodes` are those of Ray, if it is used."""

    def __init__(self, folder: Path, bundle: Path, nodes: Nodes | None, seed: int) -> None:
        self._target, self._nodes = folder / "out.jsonl", nodes
        self._journal = folder / "out.jsonl.journal"
        self._rng = random.Random(seed)
        source = write_rows(folder / "in.jsonl", make_rows(_ROWS, _TOKENS))
        undisturbed = BatchOptions(
            source=source,
            target=folder / "expected.jsonl",
            bundle=bundle,
            workers=1,
            exact=True,
        )
        run_batch(undisturbed)
        self._expected = undisturbed.target.read_bytes()
        where = ["--workers", "2"] if nodes is None else ["--ray", nodes.address]
        self._command = [source, "-o", self._target, "--bundle", bundle, "--exact", *where]
        self._command += ["--slots", "4"]

    def disturb(self, what: str, most: int) -> Counter[str]:
        """Run the batch and kill `what` up to so many times; count kills, and wrong lines."""
        kills, run = 0, Run(*self._command)
        for rows in sorted(self._rng.sample(range(_ROWS), most)):
            run.wait_for(self._journal, rows)
            time.sleep(self._rng.uniform(0, _SPREAD))
            if not (run.running and self._kill(what, run)):
                continue
            kills += 1
            if what == "driver":
                run.end()
                if self._target.exists() and not self._journal.exists():
                    break  # all was done, and only the process had not ended
                run = Run(*self._command)
        else:
            code, err = run.end()
            if code != 0:
                raise RuntimeError(f"the run ended with {code}: {err}")
        faults = faults_of(self._target.read_bytes(), self._expected)
        self._target.unlink()
        return Counter({"kills": kills, **faults})

    def _kill(self, what: str, run: Run) -> bool:
        """Kill a part of a run; return whether there was one."""
        if what == "driver":
            run.signal(signal.SIGKILL)
        elif what == "node" and self._nodes:
            self._nodes.kill_node(self._rng.randrange(2))
        else:
            workers = self._nodes.workers() if self._nodes else run.workers()
            if not workers:
                return False
            try:
                self._rng.choice(workers).kill()
            except psutil.NoSuchProcess:  # the run has just ended
                return False
        return True


def faults_of(found: bytes, expected: bytes) -> Counter[str]:
    """Count what is wrong with the lines of an output, by their ids."""
    lines = {_id_of(line): line for line in expected.splitlines()}
    ids = [_id_of(line) for line in found.splitlines()]
    known = [name for name in ids if name in lines]
    different = [line for line in found.splitlines() if lines.get(_id_of(line)) != line]
    return Counter(
        lost=len({*lines} - {*ids}),
        doubled=len(ids) - len({*ids}),
        different=len(different),
        moved=int([name for name in lines if name in ids] != [*dict.fromkeys(known)]),
    )


def _id_of(line: bytes) -> str:
    return str(json.loads(line)["custom_id"])


def kill_many(what: str, kills: int, *, bundle: Path, ray: bool, seed: int) -> Counter[str]:
    """Kill so many parts of runs; return what was counted."""
    cluster = running_nodes() if ray else nullcontext()
    with cluster as nodes, tempfile.TemporaryDirectory(prefix="issun-kills-") as name:
        series = Series(Path(name), bundle, nodes, seed)
        counts = Counter[str]()
        while counts["kills"] < kills:
            counts.update(series.disturb(what, min(_KILLS_OF_A_RUN, kills - counts["kills"])))
            print(f"{what}: {describe(counts)}", file=sys.stderr, flush=True)
    return counts


def describe(counts: Counter[str]) -> str:
    """One line of what was counted."""
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def main() -> None:
    """Run the series of the command line; exits with 1 if a line was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.kills", description=__doc__)
    parser.add_argument("--what", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--ray", action="store_true", help="kill workers and drivers on Ray, too")
    parser.add_argument(
        "--bundle", type=Path, help="int8 with an int8 KV cache; default: a random one"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory(prefix="issun-kills-") as folder:
        bundle = args.bundle or _random_bundle(Path(folder))
        for what in args.what:
            ray = args.ray or what == "node"
            counts = kill_many(what, args.kills, bundle=bundle, ray=ray, seed=args.seed)
            print(f"{what}{' on Ray' if ray else ''}: {describe(counts)}", flush=True)
            wrong |= counts.total() > counts["kills"]
    sys.exit(wrong)


def _random_bundle(folder: Path) -> Path:
    train_tokenizer(folder / "spiece.model", pieces=400)
    write_checkpoint(folder / "checkpoint", SHAPES["head-8"], folder / "spiece.model")
    export(folder / "checkpoint", folder / "bundle", ExportOptions(kv_cache="int8"))
    return folder / "bundle"


if __name__ == "__main__":
    main()
