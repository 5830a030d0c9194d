"""Turns a request into a plan and a results file, and runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from numbers import Integral
from pathlib import Path

from issun.benchmarks.engines.registry import BUNDLE, ENGINES, PEERS
from issun.benchmarks.errors import BenchError
from issun.benchmarks.interleave import TIME_SLICE
from issun.benchmarks.locking import locked
from issun.benchmarks.machine import commit, this_machine
from issun.benchmarks.measured import Results, read_results, write_results
from issun.benchmarks.plan import Plan, Target
from issun.benchmarks.runner import Runner, check_model
from issun.benchmarks.tensors import stored_tensors
from issun.export.canonical import expected_shapes
from issun.export.config import read_config
from issun.export.network import Network
from issun.runtime.demonstration import bundle_folder
from issun.runtime.errors import BundleError, ParameterError, check_choice, check_range, check_seed
from issun.runtime.manifest import KV_CACHE_TYPES, Architecture, read_manifest
from issun.runtime.weights.cores import physical_cores

PREFILLS, DEPTHS = (512, 128, 32), (128, 0)  # the first that fits is measured by default
CONTEXTS = (256, 1000)
ROUNDS, PEER_ROUNDS = 3, 6
PLAIN_SECONDS = 170.0  # without a checkpoint and a number of rounds, none starts that ends later


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A user's request, with the defaults; sizes are in tokens.

    Default sizes are those that fit into the context. Empty `contexts` skip the memory tests.
    None for `rounds` means six with a checkpoint, else up to three within three minutes.
    """

    bundles: list[Path] = field(default_factory=list)
    checkpoint: Path | None = None
    engines: tuple[str, ...] = ("all",)
    threads: tuple[int, ...] | None = None  # None: physical cores
    kv_caches: tuple[str | None, ...] = (None,)
    trust: bool = False  # the bundles' graphs, as for `Model.load`
    rounds: int | None = None
    prefills: tuple[int, ...] | None = None
    depths: tuple[int, ...] | None = None
    contexts: tuple[int, ...] | None = None
    new_tokens: int = 64
    turn: bool = False  # measure a chat turn too
    seed: int = 0


def run(
    request: Request,
    output: Path,
    work: Path | None,
    *,
    resume: bool,
    report: Callable[[str], object],
) -> Results:
    """Run `request` and store the results in `output`.

    Converted models are kept in `work`; by default they are written next to `output` and deleted at
    the end. Raises ParameterError and BenchError before any work.
    """
    folder = work or output.with_suffix(".work")
    targets = _targets(request, folder)
    shape = _shape(request)
    plan = _plan(request, targets, shape)
    with locked(output):
        results = _results(request, output, shape, plan.tests, resume=resume)
        for target, entry in product(targets, results.engines):
            if (target.name, target.engine) == (entry.name, BUNDLE):
                check_model(target, entry, request.checkpoint)
        write_results(output, results)
        Runner(plan, results, output, report).run()
        if work is None and request.checkpoint is not None:
            for target in _converted(ENGINES | PEERS, folder):  # also those of resumed runs
                target.remove()
            with suppress(OSError):  # there is something else in it
                folder.rmdir()
    return results


def _targets(request: Request, folder: Path) -> list[Target]:
    targets = []
    bundles: list[Path | None] = [*request.bundles]
    if not bundles and request.checkpoint is None:
        bundles = [None]
    for named in bundles:
        bundle = bundle_folder(named).resolve()
        for kind in request.kv_caches:
            if kind is not None:
                check_choice("kv_cache", kind, KV_CACHE_TYPES)
            read_manifest(bundle)  # raises if it is not a bundle
            name = bundle.name + (f", {kind} KV" if kind else "")
            targets.append(Target(name, bundle, kv_cache=kind, trust=request.trust))
    if request.checkpoint is not None:
        names = tuple(ENGINES) if request.engines == ("all",) else request.engines
        for name in names:
            check_choice("engines", name, ENGINES | PEERS)
        targets += _converted(names, folder)
    for target in targets:
        if target.is_foreign():
            raise BenchError(
                "{path} exists and was not made by a benchmark: delete it, or name another folder "
                "with --work.",
                path=target.folder,
            )
    target_names = [target.name for target in targets]
    if len(set(target_names)) < len(target_names):
        raise ParameterError("Two bundles or engines have the same name: rename a folder.")
    return targets


def _converted(names: Iterable[str], folder: Path) -> list[Target]:
    return [Target(name, folder.resolve() / name, engine=name) for name in names]


def _shape(request: Request) -> Architecture | Network:
    if request.checkpoint is not None:
        return read_config(request.checkpoint)[1]
    return read_manifest(
        bundle_folder(request.bundles[0] if request.bundles else None)
    ).architecture


def _plan(request: Request, targets: list[Target], shape: Architecture | Network) -> Plan:
    # What is measured must fit all bundles, and their ids are the same.
    others = [read_manifest(bundle_folder(bundle)).architecture for bundle in request.bundles]
    limit = min(each.n_positions for each in (shape, *others))
    new = request.new_tokens
    check_range("new-tokens", new, Integral, 1, limit - 2)  # beside a prompt
    check_seed(request.seed)
    return Plan(
        targets=targets,
        checkpoint=request.checkpoint.resolve() if request.checkpoint else None,
        threads=request.threads or (physical_cores(),),
        vocab_size=min(each.vocab_size for each in (shape, *others)),
        rounds=request.rounds or (PEER_ROUNDS if request.checkpoint else ROUNDS),
        seconds=None if request.rounds or request.checkpoint else PLAIN_SECONDS,
        prefills=_fitting("prefill", request.prefills, PREFILLS, limit - 1),
        depths=_fitting("decode", request.depths, DEPTHS, limit - new - 1),
        contexts=_contexts(request, limit),
        new_tokens=new,
        turn=request.turn,
        seed=request.seed,
    )


def _contexts(request: Request, limit: int) -> tuple[int, ...]:
    minimum = request.new_tokens + 1
    if request.contexts == ():
        return ()
    if request.contexts is None:
        if minimum <= min(CONTEXTS) and max(CONTEXTS) < limit:
            return CONTEXTS
        return tuple(dict.fromkeys(max(minimum, size) for size in (limit // 4, limit - 24)))
    found = _fitting("memory", request.contexts, (), limit - 1)
    if min(found) < minimum:
        raise ParameterError(
            "memory is {value!r}: a context must hold a prompt and {new} new tokens.",
            value=min(found),
            new=request.new_tokens,
        )
    return found


def _fitting(
    name: str, sizes: tuple[int, ...] | None, default: tuple[int, ...], limit: int
) -> tuple[int, ...]:
    if not sizes:
        return tuple(size for size in default if size <= limit)[:1] if sizes is None else ()
    if max(sizes) > limit:
        raise ParameterError(
            "{name} is {value!r}, it must be at most {limit:,} to fit into the context.",
            name=name,
            value=max(sizes),
            limit=limit,
        )
    return sizes


def _results(
    request: Request,
    output: Path,
    shape: Architecture | Network,
    tests: list[str],
    *,
    resume: bool,
) -> Results:
    named = request.checkpoint or bundle_folder(request.bundles[0] if request.bundles else None)
    new = Results(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        issun=version("issun"),
        commit=commit(),
        machine=this_machine(),
        checkpoint=named.resolve().name,
        parameters=_parameters(request),
        shape={
            "n_layer": shape.n_layer,
            "n_embd": shape.n_embd,
            "n_head": shape.n_head,
            "n_inner": shape.n_inner,
            "n_positions": shape.n_positions,
            "vocab_size": shape.vocab_size,
        },
        seed=request.seed,
        turn=TIME_SLICE,
        new_tokens=request.new_tokens,
        tests=tests,
    )
    if output.exists():
        if resume:
            return _resumed(output, new)
        raise BenchError(
            "{path} exists: resume it with --resume, or name another file.", path=output
        )
    if resume:
        raise BenchError("There is no run to resume at {path}.", path=output)
    return new


def _resumed(output: Path, new: Results) -> Results:
    """The results in `output`; raises BenchError if those of `new` would not belong to them."""

    def origin(results: Results) -> tuple[object, ...]:
        model = (results.checkpoint, results.shape)
        return results.machine.cpu, model, results.seed, results.new_tokens

    found = read_results(output)
    if origin(found) != origin(new):
        raise BenchError(
            "{path} was measured with another machine, model, seed or number of new tokens: "
            "name another file.",
            path=output,
        )
    if found.tests not in ([], new.tests):  # all samples of an entry are of the same rounds
        raise BenchError(
            "{path} was measured with other values of --prefill, --decode or --turn: repeat "
            "those, or name another file.",
            path=output,
        )
    if new.commit not in found.commit.split(", "):  # each measured a part
        found.commit = ", ".join(filter(None, (found.commit, new.commit)))
    for engine in found.engines:  # retry failed engines
        if engine.status != "measured":
            engine.status, engine.reason = "measured", ""
    return found


def _parameters(request: Request) -> int:
    """The number of the network's parameters; padding counts if only a bundle is at hand."""
    if request.checkpoint is not None:
        shapes = expected_shapes(*read_config(request.checkpoint))
        return sum(map(math.prod, shapes.values()))
    for bundle in request.bundles or (None,):
        folder = bundle_folder(bundle)
        with suppress(BundleError):  # a damaged one is reported when it is measured
            manifest = read_manifest(folder)
            tensors = stored_tensors(folder / manifest.graphs[manifest.kv_cache])
            return sum(tensor.values for tensor in tensors.values())
    return 0
