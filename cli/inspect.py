"""`issun inspect`: shows what a bundle contains."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from issun.cli import options as opt
from issun.cli.language import mark, note, printable, printable_json, recognize, tr
from issun.runtime.demonstration import bundle_folder
from issun.runtime.manifest import AnyTemplate, Manifest, Template, read_manifest, verify_hashes

# What an export writes into the manifest in English. A longer text begins with `message`.
_TEMPLATES = (
    mark("{message}; {value} on the shipped text"),
    mark("{message}; KL divergence {value} on a held-out fifth of the calibration text"),
    mark("{message}; KL divergence {value} on the calibration text"),
    mark("{message}; {count} outlier channels in float32"),
    mark("{message}; {count} channels in float32"),
    mark("{message}, {kind} for {count} linear layers"),
    mark("{kind} for {count} linear layers"),
    mark("int8 weights per output channel, activations quantized row by row"),
    mark("int8 weights per output channel, activations quantized call by call"),
    mark("{message}, GPTQ"),
    mark("4-bit symmetric blocks of {size}"),
    mark("8-bit blocks of {size}"),
    mark("{message}, up to {count} windows of {size} tokens"),
    mark("shipped text (sha256 {digest})"),
    mark("text {name} (sha256 {digest})"),
)


def run(
    *,
    bundle: opt.Bundle = None,
    as_json: Annotated[bool, typer.Option("--json", help=tr("Print the whole manifest."))] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help=tr("Check every file against its hash."))
    ] = False,
) -> None:
    """Print a summary of the manifest."""
    folder = bundle_folder(bundle)
    manifest = read_manifest(folder)
    if verify:
        verify_hashes(folder, manifest)
    if as_json:
        described = {"id": manifest.bundle_id} | msgspec.to_builtins(manifest)
        text = msgspec.json.format(msgspec.json.encode(described), indent=2).decode()
        print(printable_json(text))
    else:
        for name, value in _lines(folder, manifest):
            print(printable(f"{name}: {value}"))
    if verify:
        note("All files are as they were exported.")


def _lines(bundle: Path, manifest: Manifest) -> list[tuple[str, str]]:
    architecture, precision = manifest.architecture, manifest.precision
    tokens = manifest.tokens
    ids = tokens.special | {token: added.id for token, added in tokens.added.items()}
    special = ", ".join(f"{token} {i}" for token, i in ids.items())
    ends = ", ".join(map(str, sorted(tokens.end_ids)))
    default = tr("{name} (default)").format(name=manifest.kv_cache)
    kinds = [default if k == manifest.kv_cache else k for k in manifest.graphs]
    return [
        (tr("bundle"), tr("{path} ({id})").format(path=bundle, id=manifest.bundle_id)),
        (
            tr("source"),
            tr("{name} (sha256 {digest})").format(
                name=manifest.source.name, digest=manifest.source.sha256[:16]
            ),
        ),
        *(
            (
                tr("adapter"),
                tr("{name}, weight {weight:g} (sha256 {digest})").format(
                    name=it.name, weight=it.weight, digest=it.sha256[:16]
                ),
            )
            for it in manifest.source.adapters
        ),
        (
            tr("exporter"),
            tr("{name}, graph {graph}").format(name=manifest.exporter, graph=manifest.graph),
        ),
        (
            tr("network"),
            tr(
                "{family}, {n_layer} layers, width {n_embd}, {n_head} heads ({n_kv_head} for keys "
                "and values), context {n_positions:,}, {vocab_size:,} ids"
            ).format(**msgspec.structs.asdict(architecture)),
        ),
        (tr("precision"), precision.name),
        ("  " + tr("linears"), shown_precision(precision.linears)),
        ("  " + tr("embedding"), shown_precision(precision.embedding)),
        ("  " + tr("head"), shown_precision(precision.head)),
        *(
            [(tr("calibration"), shown_precision(precision.calibration))]
            if precision.calibration
            else []
        ),
        (tr("KV cache"), ", ".join(kinds)),
        (
            tr("tokenizer"),
            tr("{count:,} pieces; {special}").format(count=tokens.pieces, special=special),
        ),
        *([(tr("end tokens"), ends)] if tokens.ends else []),
        (tr("prompt"), _prompt(manifest.prompt)),
        (tr("sampling"), ", ".join(f"{k} {v}" for k, v in manifest.sampling.items())),
        *_fidelity(manifest),
        *(
            (
                f"  {name}",
                tr("{size:,} B, sha256 {digest}").format(size=info.size, digest=info.sha256[:16]),
            )
            for name, info in manifest.files.items()
        ),
    ]


def _prompt(template: AnyTemplate) -> str:
    if isinstance(template, Template):
        return tr("{name} (placeholders)").format(name=template.name)
    roles = tr("system messages") if template.takes_system else tr("no system messages")
    return tr("{name} (Jinja, {roles})").format(name=template.name, roles=roles)


def shown_precision(text: str) -> str:
    """A text of the manifest's `precision` in the user's language."""
    return recognize(text, _TEMPLATES)


def _fidelity(manifest: Manifest) -> list[tuple[str, str]]:
    """The results of `issun bench fidelity`, one line for each KV cache type."""
    shown = tr(
        "{kind} KV cache: perplexity x {ratio:.5f}, KL {kl_mean:.5f}, same top token "
        "{agreement:.2%} ({date}, {text}, compared with {against})"
    )
    lines = []
    for kind, found in manifest.fidelity.items():
        with suppress(
            AttributeError, KeyError, TypeError, ValueError
        ):  # of another or an older program
            lines.append((tr("fidelity"), shown.format(kind=kind, **found)))
    return lines
