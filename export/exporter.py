"""Exports a checkpoint as a bundle: check everything, write tensor by tensor, rename at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as replace_options
from functools import partial
from importlib.metadata import version
from pathlib import Path

from msgspec.structs import replace

from issun.export.calibrate import NUM_WINDOWS_GPTQ, NUM_WINDOWS_HELD_OUT, WINDOW
from issun.export.canonical import LINEARS
from issun.export.checkpoint import Checkpoint, limit_context
from issun.export.cost import gptq_cost, measured_flops, measuring_cost
from issun.export.draft import draft_messages, write_drafts
from issun.export.errors import CheckpointError
from issun.export.frontier import Point
from issun.export.generation import read_generation
from issun.export.gptq_store import GPTQStore, clear_gptq_store, open_gptq_store
from issun.export.hub import Located
from issun.export.models.family import Family
from issun.export.models.gpt2 import GPT2
from issun.export.native import NativeRoute, chosen_text
from issun.export.network import Network
from issun.export.options import ExportOptions, Progress, Route, Via
from issun.export.prompt_format import Chosen, choose_template
from issun.export.source import open_source
from issun.export.target import (
    check_space,
    check_target,
    clear_remains,
    real_target,
    scratch,
    staged,
)
from issun.export.tokenizer_files import report_tokenizer
from issun.runtime.errors import Notify
from issun.runtime.files import user_path
from issun.runtime.manifest import (
    DRAFT_NAME,
    FORMAT_VERSION,
    AnyTemplate,
    FileInfo,
    Manifest,
    MergedAdapter,
    Source,
    combined_sha256,
    sha256_of,
    write_manifest,
)

_MARGIN_BYTES = 16 << 20
_UNLIMITED = 1 << 62
_REPORTED_SECONDS = 30  # shorter work is not announced


def export(
    source: str | Path,
    target: str | Path,
    options: ExportOptions | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress = lambda stage, done, total: None,
    notify: Notify = lambda template, **values: None,
) -> Manifest:
    """Export the checkpoint `source` (a folder or a hub id) as a bundle to the folder `target`.

    Everything is checked before the long work starts: raises ParameterError, CheckpointError,
    BundleError (for an invalid tokenizer), MissingExtraError or TargetError, and never leaves an
    incomplete bundle at the target.
    `progress` is called with a stage and its bytes; `notify` with a message template and its
    values.
    """
    options = options or ExportOptions()
    target, local = real_target(target), user_path(source)
    clear_remains(target, notify)
    for read in [local, *([user_path(options.tokenizer)] if options.tokenizer else [])]:
        check_target(target, read, force=options.force)
    messages = draft_messages(chosen_text(options.calibrate)) if options.draft else []
    located, checkpoint, tokenizer, prompt = _open(source, options, revision, token, notify)
    report_tokenizer(checkpoint.tokenizer.path.parent, checkpoint.tokenizer.choice, notify)
    tokens = checkpoint.tokenizer.tokens
    generation = read_generation(
        checkpoint.folder, checkpoint.network, unk=tokens.unk, eos=tokens.eos, notify=notify
    )
    with _gptq_store(target, checkpoint, options, prompt.template, notify) as store:
        route = _route(checkpoint, options, prompt.template, store)
        check_space(target, route.disk_bytes() + _MARGIN_BYTES)
        with staged(target) as folder:
            written = route.write(folder, progress)
            (folder / tokens.file).write_bytes(checkpoint.tokenizer.content)
            manifest = Manifest(
                format=FORMAT_VERSION,
                exporter=f"issun {version('issun')}",
                graph=options.via,
                architecture=checkpoint.network.architecture(padded=options.via == "issun"),
                precision=written.precision,
                kv_cache=options.kv_cache,
                graphs=written.graphs,
                tokens=replace(tokens, ends=generation.ends),
                prompt=prompt.template,
                sampling=generation.sampling,
                source=_source(checkpoint, located, tokenizer, progress),
                files=_files(folder),
            )
            write_manifest(folder, manifest)
            if options.draft:  # made with the bundle, which must be complete to run
                write_drafts(folder, messages, progress)
                files = manifest.files | {DRAFT_NAME: _file_info(folder / DRAFT_NAME)}
                manifest = replace(manifest, files=dict(sorted(files.items())))
                write_manifest(folder, manifest)
    prompt.report(notify)
    return manifest


def frontier(
    source: str | Path,
    sizes: Sequence[int] = (),
    options: ExportOptions | None = None,
    *,
    work: Path = Path("frontier"),
    revision: str | None = None,
    token: str | None = None,
    progress: Progress = lambda stage, done, total: None,
    notify: Notify = lambda template, **values: None,
) -> list[Point]:
    """What `--budget` would choose for each of `sizes` in bytes, without writing a bundle.

    The default is ten sizes, evenly spaced between int4 and 8-bit blocks for all linear layers.
    Temporary files are next to `work`. Raises what `export` raises.
    """
    options = replace_options(options or ExportOptions(), budget=min(sizes, default=_UNLIMITED))
    target = real_target(work)
    clear_remains(target, notify)
    _, checkpoint, _, prompt = _open(source, options, revision, token, notify)
    with _gptq_store(target, checkpoint, options, prompt.template, notify) as store:
        route = NativeRoute(checkpoint, options, prompt.template, store)
        check_space(target, route.disk_bytes() + _MARGIN_BYTES)
        with scratch(target) as folder, route.frontier(folder, progress) as (found, *_):
            return found.points(sizes)


def _open(
    source: str | Path,
    options: ExportOptions,
    revision: str | None,
    token: str | None,
    notify: Notify,
) -> tuple[Located, Checkpoint, Located | None, Chosen]:
    """The checkpoint and its tokenizer, where they are, and the prompt template."""
    located, checkpoint, tokenizer = open_source(
        str(source),
        tokenizer=options.tokenizer,
        adapters=options.adapters,
        revision=revision,
        token=token,
        accept=partial(_check_via, options.via),
        notify=notify,
    )
    checkpoint = limit_context(checkpoint, options.context, notify=notify)
    prompt = choose_template(checkpoint, located.name, options.template)
    return located, checkpoint, tokenizer, prompt


def _check_via(via: Via, family: Family, network: Network) -> None:
    """Raise CheckpointError unless the route `via` exports this family."""
    if via == "optimum" and family is not GPT2:  # other graphs of Optimum have other inputs
        raise CheckpointError(
            "--via optimum exports gpt2 only, and the model is {family}: export it without --via.",
            family=network.family,
        )


@contextmanager
def _gptq_store(
    target: Path,
    checkpoint: Checkpoint,
    options: ExportOptions,
    template: AnyTemplate,
    notify: Notify,
) -> Iterator[GPTQStore | None]:
    """Where GPTQ stores finished layers until the export succeeds; None without GPTQ."""
    _report_cost(checkpoint, options, notify)
    if not options.fitted:
        clear_gptq_store(target)
        yield None
        return
    adapters = [path for it in checkpoint.merged for path in it.adapter.files]
    read = [*checkpoint.files, *adapters, *([options.calibrate] if options.calibrate else [])]
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in read]
    weights = [it.weight for it in checkpoint.merged]
    state = f"{version('issun')} {states} {options.context} {template} {weights}"
    with open_gptq_store(target, state, notify) as store:
        yield store


def _report_cost(checkpoint: Checkpoint, options: ExportOptions, notify: Notify) -> None:
    """Report the expected time and memory of long work."""
    if not (options.fitted or options.mixed):
        return
    network, flops = checkpoint.network, measured_flops()
    window = min(WINDOW, network.n_positions)
    weights = {name: checkpoint.tensors.get(f"h.0.{name}.weight") for name in LINEARS}
    shapes = {name: weight.shape for name, weight in weights.items() if weight is not None}
    costs = []
    if options.fitted:
        tokens = NUM_WINDOWS_GPTQ * window
        costs.append(gptq_cost(network, shapes, tokens=tokens, flops=flops))
    if options.mixed:
        tokens = NUM_WINDOWS_HELD_OUT * window
        costs.append(measuring_cost(network, shapes, tokens=tokens, flops=flops))
    seconds = sum(cost.seconds for cost in costs)
    if seconds < _REPORTED_SECONDS:
        return
    minutes, memory = seconds / 60, max(cost.peak_bytes for cost in costs) / 1e9
    if options.mixed:
        notify(
            "Mixed precision takes about {minutes:.0f} min and {memory:.1f} GB of memory at its "
            "peak.",
            minutes=minutes,
            memory=memory,
        )
    else:
        notify(
            "GPTQ takes about {minutes:.0f} min and {memory:.1f} GB of memory at its peak; "
            "--no-gptq is quicker and less accurate.",
            minutes=minutes,
            memory=memory,
        )


def _route(
    checkpoint: Checkpoint, options: ExportOptions, template: AnyTemplate, store: GPTQStore | None
) -> Route:
    if options.via == "optimum":
        from issun.export.optimum import OptimumRoute  # noqa: PLC0415

        return OptimumRoute(checkpoint, options)
    return NativeRoute(checkpoint, options, template, store)


def _source(
    checkpoint: Checkpoint, located: Located, tokenizer: Located | None, progress: Progress
) -> Source:
    total = sum(path.stat().st_size for path in checkpoint.files)
    hashes, done = {}, 0
    for path in checkpoint.files:
        progress("hash", done, total)
        hashes[path.name] = sha256_of(path)
        done += path.stat().st_size
    progress("hash", done, total)
    return Source(
        name=located.name,
        revision=located.revision,
        files=hashes,
        sha256=combined_sha256(hashes),
        tokenizer=tokenizer.name if tokenizer else "",
        adapters=tuple(
            MergedAdapter(it.adapter.name, it.weight, it.adapter.sha256())
            for it in checkpoint.merged
        ),
    )


def _files(folder: Path) -> dict[str, FileInfo]:
    return {path.name: _file_info(path) for path in sorted(folder.iterdir())}


def _file_info(path: Path) -> FileInfo:
    return FileInfo(path.stat().st_size, sha256_of(path))
