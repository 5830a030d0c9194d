"""Measures how far bundles and other engines are from float32, all on the same ids.

Each runs in its own process, which writes its logits to a file, so that one that crashes is
reported and the others continue.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from issun.benchmarks.distances import Comparison, Distance, Point, Text
from issun.benchmarks.divergence import cut_windows
from issun.benchmarks.engines.registry import BUNDLE, version_of
from issun.benchmarks.errors import BenchError
from issun.benchmarks.memory import watch
from issun.benchmarks.plan import Target
from issun.benchmarks.reference import Reference
from issun.benchmarks.worker import LOGITS, WINDOWS, Job
from issun.benchmarks.workers import failure, refusal, worker_command
from issun.runtime import Model
from issun.runtime.decoding.distributions import log_softmax, row_kl
from issun.runtime.errors import ParameterError
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.cores import physical_cores

_ROWS = 64  # processed at a time in float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to compare: bundles, engines that convert `checkpoint`, and texts (name, content)."""

    reference: Path  # a float32 bundle
    checkpoint: Path
    bundles: list[Path]
    engines: Sequence[str]
    texts: list[tuple[str, str]]
    window: int  # tokens that are read together
    calibration: Path | None  # for engines that fit their weights; None: the text in the package
    trust: bool = False  # the bundles' graphs, as for `Model.load`


def measure(
    request: Request, found: Comparison, work: Path, report: Callable[[str], object]
) -> Iterator[Point]:
    """Measure everything that `request` names, and add texts and points to `found`.

    Yields after each point. Temporary files are in `work`. Raises ParameterError and BenchError
    before any engine runs; what fails later is in its point.
    """
    with TemporaryDirectory(prefix=".issun-peers-", dir=work) as folder:
        targets = _targets(request, Path(folder))
        report("float32")
        scored = _Scored(request, Path(folder))
        found.texts = scored.texts
        for target in targets:
            report(target.label)
            point = _measure(request, target, scored)
            if point.status != "measured":
                report(f"{target.label}: {point.status}: {point.reason}")
            found.points.append(point)
            yield point


def _targets(request: Request, work: Path) -> list[Target]:
    tokenizer = _tokenizer(request.reference)
    targets = []
    for bundle in request.bundles:
        if _tokenizer(bundle) != tokenizer:
            raise BenchError("The two models have different vocabularies.")
        targets.append(Target(bundle.resolve().name, bundle.resolve(), trust=request.trust))
    targets += [Target(name, work / name, engine=name) for name in request.engines]
    if len({target.name for target in targets}) < len(targets):
        raise ParameterError("Two bundles or engines have the same name: rename a folder.")
    return targets


def _tokenizer(bundle: Path) -> tuple[str, int]:
    manifest = read_manifest(bundle)
    return manifest.files[manifest.tokens.file].sha256, manifest.architecture.vocab_size


class _Scored:
    """The reference's logits on all texts, and the folder in which engines score the same ids."""

    def __init__(self, request: Request, folder: Path) -> None:
        self.folder, self.texts = folder, list[Text]()
        windows: list[list[int]] = []
        with Model.load(request.reference, kv_cache="float32", keep_packed=False) as model:
            for name, content in request.texts:
                ids = model.encode(content)
                digest = hashlib.sha256(content.encode()).hexdigest()
                self.texts.append(Text(name=name, sha256=digest, tokens=len(ids)))
                windows += map(list, cut_windows(ids, model.decoder.n_positions, request.window))
            positions = sum(map(len, windows))
            self._reference = Reference(folder / "float32", positions, model.manifest.architecture)
            if self._reference.top:
                raise BenchError(
                    "The logits of two models need {needed:,} MB of disk space: use a shorter "
                    "text.",
                    needed=8 * positions * self._reference.vocab_size // 10**6,
                )
            for window in windows:
                self._reference.add(window, model.score(window))
        (folder / WINDOWS).write_text(json.dumps(windows))
        self.vocab_size, self._argmax = self._reference.vocab_size, self._reference.argmax()

    def distances(self) -> Iterator[Distance]:
        """Of the logits that an engine has written, one for each text. Raises BenchError."""
        path, row_bytes = self.folder / LOGITS, 4 * self.vocab_size
        if path.stat().st_size != len(self._argmax) * row_bytes:
            raise BenchError("The two models have different vocabularies.")
        start = 0
        for text in self.texts:
            divergences, agreements = [], []
            stop = start + text.tokens
            while start < stop:
                shape = min(_ROWS, stop - start), self.vocab_size
                logits = np.fromfile(
                    path, np.float32, shape[0] * shape[1], offset=start * row_bytes
                )
                expected, own = self._reference.read(start, log_softmax(logits.reshape(shape)))
                divergences.append(row_kl(expected, own))
                agreements.append(own.argmax(axis=-1) == self._argmax[start : start + shape[0]])
                start += shape[0]
            kl, same = np.concatenate(divergences).mean(), np.concatenate(agreements).mean()
            yield Distance(kl=float(kl), agreement=float(same))
        path.unlink()


def _measure(request: Request, target: Target, scored: _Scored) -> Point:
    ours = target.engine == BUNDLE or target.engine.startswith("issun")
    point = Point(name=target.name, label=target.label, ours=ours)
    if reason := refusal(target, request.checkpoint):
        point.status, point.reason = "skipped", reason
        return point
    point.versions = {name: version_of(name) or "" for name in target.kind.packages}
    job: dict[str, Any] = {
        "engine": target.engine,
        "trust": target.trust,
        "checkpoint": str(request.checkpoint),
        "folder": str(target.folder),
        "threads": physical_cores(),
        "vocab_size": scored.vocab_size,
        "calibration": str(request.calibration) if request.calibration else None,
        "scores": str(scored.folder),
    }
    try:
        if target.engine == BUNDLE:
            point.bundle = read_manifest(target.folder).bundle_id
        elif not _run(point, Job(work="convert", **job)):
            return point
        files = target.create_engine(request.checkpoint).model_files()
        if _run(point, Job(work="score", **job)):
            point.size = sum(path.stat().st_size for path in files)
            point.distances = list(scored.distances())
    finally:
        if target.engine != BUNDLE:
            shutil.rmtree(target.folder, ignore_errors=True)
    return point


def _run(point: Point, job: Job) -> bool:
    """Run a worker, take over what it says about the engine, and whether it ended well."""

    def take(line: str, _: int) -> None:
        for name, value in json.loads(line).get("about", {}).items():
            setattr(point, name, value)

    done = watch(worker_command(job), on_line=take, interval=0.1)
    if done.exit_code:
        point.status, point.reason = failure(done.exit_code, done.stderr)
    return done.exit_code == 0
