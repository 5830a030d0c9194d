"""Exports a checkpoint as a bundle: check everything, write tensor by tensor, rename at the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from issun.export.checkpoint import Checkpoint, TokenizerSource
from issun.export.errors import CheckpointError
from issun.export.generation import read_generation
from issun.export.gptq_store import GPTQStore, clear_gptq_store, open_gptq_store
from issun.export.hub import Located
from issun.export.native import NativeRoute
from issun.export.options import ExportOptions, Progress, Route
from issun.export.source import open_source
from issun.export.target import (
    check_space,
    check_target,
    clear_remains,
    real_target,
    staged,
)
from issun.export.template import ALPACA, check_template, load_template
from issun.export.tokenizer_files import report_unsupported
from issun.runtime.errors import Notify
from issun.runtime.files import user_path
from issun.runtime.manifest import (
    FORMAT_VERSION,
    FileInfo,
    Manifest,
    Source,
    Template,
    Tokens,
    combined_sha256,
    sha256_of,
    write_manifest,
)

TOKENIZER = "spiece.model"
_MARGIN_BYTES = 16 << 20


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
    MissingExtraError or TargetError, and never leaves an incomplete bundle at the target.
    `progress` is called with a stage and its bytes; `notify` with a message template and its
    values.
    """
    options = options or ExportOptions()
    target, local = real_target(target), user_path(source)
    clear_remains(target, notify)
    for read in [local, *([user_path(options.tokenizer)] if options.tokenizer else [])]:
        check_target(target, read, force=options.force)
    located, checkpoint, tokenizer = open_source(
        str(source), tokenizer=options.tokenizer, revision=revision, token=token, notify=notify
    )
    template = load_template(options.template) if options.template else ALPACA
    check_template(template, checkpoint.tokenizer.spellings)
    report_unsupported(
        checkpoint.tokenizer.path.parent, None if options.template else template.name, notify
    )
    unk = checkpoint.tokenizer.id_of("unk")
    if unk is None:
        raise CheckpointError("{path} defines no unknown token.", path=checkpoint.folder)
    eos = checkpoint.tokenizer.id_of("eos")
    generation = read_generation(
        checkpoint.folder, checkpoint.config, unk=unk, eos=eos, notify=notify
    )
    with _gptq_store(target, checkpoint, options, notify) as store:
        route = _route(checkpoint, options, template, store)
        check_space(target, route.disk_bytes() + _MARGIN_BYTES)
        with staged(target) as folder:
            written = route.write(folder, progress)
            shutil.copyfile(checkpoint.tokenizer.path, folder / TOKENIZER)
            manifest = Manifest(
                format=FORMAT_VERSION,
                exporter=f"issun {version('issun')}",
                graph=options.via,
                architecture=checkpoint.config.architecture(padded=options.via == "issun"),
                precision=written.precision,
                kv_cache=options.kv_cache,
                graphs=written.graphs,
                tokens=_tokens(checkpoint.tokenizer, unk, generation.ends),
                prompt=template,
                sampling=generation.sampling,
                source=_source(checkpoint, located, tokenizer, progress),
                files=_files(folder),
            )
            write_manifest(folder, manifest)
    return manifest


@contextmanager
def _gptq_store(
    target: Path, checkpoint: Checkpoint, options: ExportOptions, notify: Notify
) -> Iterator[GPTQStore | None]:
    """Where GPTQ stores finished layers until the export succeeds; None without GPTQ."""
    if not options.gptq:
        clear_gptq_store(target)
        yield None
        return
    read = [*checkpoint.files, *(path for path in (options.calibrate, options.template) if path)]
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in read]
    with open_gptq_store(target, f"{version('issun')} {states}", notify) as store:
        yield store


def _route(
    checkpoint: Checkpoint, options: ExportOptions, template: Template, store: GPTQStore | None
) -> Route:
    if options.via == "optimum":
        from issun.export.optimum import OptimumRoute  # noqa: PLC0415

        return OptimumRoute(checkpoint, options)
    return NativeRoute(checkpoint, options, template, store)


def _tokens(tokenizer: TokenizerSource, unk: int, ends: tuple[int, ...]) -> Tokens:
    return Tokens(
        file=TOKENIZER,
        pieces=tokenizer.pieces,
        do_lower_case=tokenizer.do_lower_case,
        special=tokenizer.special,
        bos=tokenizer.id_of("bos"),
        eos=tokenizer.id_of("eos"),
        unk=unk,
        pad=tokenizer.id_of("pad"),
        sep=tokenizer.id_of("sep"),
        added=tokenizer.added,
        ends=ends,
    )


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
    )


def _files(folder: Path) -> dict[str, FileInfo]:
    return {
        path.name: FileInfo(path.stat().st_size, sha256_of(path))
        for path in sorted(folder.iterdir())
    }
