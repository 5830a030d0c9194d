"""`issun bench fidelity`: compares a bundle with the model that it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from issun.benchmarks.engines.registry import PEERS
from issun.cli import options as opt
from issun.cli.extras import needs_extra
from issun.cli.float32 import float32_bundle, work_folder
from issun.cli.language import note, printable, printable_json, tr
from issun.cli.peers import PeerOptions, compare_with_peers
from issun.cli.progress import Bars
from issun.runtime import ParameterError
from issun.runtime.errors import check_choice, check_range
from issun.runtime.files import reason_of, user_path
from issun.runtime.manifest import (
    MANIFEST_NAME,
    KVCacheType,
    Manifest,
    read_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from issun.benchmarks.by_layer import LayerSensitivity
    from issun.benchmarks.fidelity import Fidelity

_WORST = 10
_PEER_DEFAULTS = PeerOptions()


def run(
    *,
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE", help=tr("Folders of bundles."))
    ],
    against: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help=tr("The checkpoint that the bundle was made from, or a float32 bundle."),
        ),
    ],
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help=tr("Text to compare on (default: a built-in one); several with --peers."),
        ),
    ] = None,
    kv_cache: Annotated[
        str | None,
        typer.Option(help=tr("KV cache type to measure (default: all that the bundle has).")),
    ] = None,
    trust: opt.Trust = False,
    answers: Annotated[
        int | None, typer.Option(help=tr("Number of greedy answers to compare (default: 20)."))
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help=tr("Folder or hub id of the tokenizer, if it is not in the checkpoint."),
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=tr("Folder for temporary files, which may be large.")),
    ] = None,
    keep: Annotated[bool, typer.Option(help=tr("Record the result in the bundle."))] = True,
    layers: Annotated[
        bool, typer.Option("--by-layer", help=tr("Also show which linear layers lose most."))
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help=tr(
                "Print one table with all bundles and with other engines that convert the "
                "checkpoint; nothing is recorded in the bundles."
            ),
        ),
    ] = False,
    engines: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Engines for --peers: all, none, or a comma-separated list of {names} (default: "
                "{default})."
            ).format(names=", ".join(PEERS), default=_PEER_DEFAULTS.engines)
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help=tr(
                "Tokens that --peers reads together, from an empty cache (default: {default})."
            ).format(default=_PEER_DEFAULTS.window)
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr("Text that other engines are fitted to (default: the one that export uses)."),
        ),
    ] = None,
    speeds: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr("Results of `issun bench run`, for the decode speeds in the table of --peers."),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help=tr("File for the results of --peers, as JSON.")
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=tr("Print all results as JSON."))] = False,
) -> None:
    """Compare the models on a text and by their answers, and record the result in the bundle."""
    from issun.benchmarks.fidelity import ANSWERS, compare, load_text  # noqa: PLC0415

    for_peers = _given(
        engines=engines,
        window=window,
        calibrate=calibrate and user_path(calibrate),
        speeds=speeds and user_path(speeds),
        output=output and user_path(output),
    )
    alone = _given(kv_cache=kv_cache, answers=answers, by_layer=layers or None)
    opt.refuse(opt.NOT_WITH, _options(alone) if peers else {}, other="--peers")
    opt.refuse(opt.ONLY_WITH, {} if peers else _options(for_peers), other="--peers")
    bundles, against = [user_path(bundle) for bundle in bundles], user_path(against)
    tokenizer = None if tokenizer is None else opt.utf8(tokenizer)
    texts = [load_text(path) for path in text] if text else [load_text(None)]
    if peers:
        options = PeerOptions(
            **for_peers, tokenizer=tokenizer, trust=trust, work=work, as_json=as_json
        )
        compare_with_peers(bundles, against, texts, options)
        return
    if len(bundles) > 1 or len(texts) > 1:
        raise ParameterError("Several bundles or texts need --peers.")
    bundle = bundles[0]
    manifest = read_manifest(bundle)
    kinds = list(manifest.graphs)
    if kv_cache is not None:
        check_choice("kv_cache", kv_cache, kinds)
        kinds = [kind for kind in kinds if kind == kv_cache]
    answers = ANSWERS if answers is None else answers
    check_range("answers", answers, Integral, 0, math.inf)
    if layers:
        _check_layers(bundle, against, manifest)
    stages = {
        "reference": tr("running the float32 model"),
        "bundle": tr("running the bundle"),
        "answers": tr("generating answers"),
    }
    folder = work_folder(work, bundle, against)
    found: dict[KVCacheType, Fidelity] = {}
    with float32_bundle(against, folder, tokenizer) as (reference, name), Bars(stages) as progress:
        for kind, fidelity in compare(
            reference,
            bundle,
            texts[0],
            against=name,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            kv_caches=kinds,
            answers=answers,
            trust=trust,
            work=folder,
            progress=progress,
        ):
            found[kind] = fidelity
            if not as_json:
                _print(kind, fidelity)
            if keep:
                _record(bundle, manifest, kind, fidelity)
    hurt = _by_layer(against, manifest, texts[0][1], tokenizer) if layers else []
    if as_json:
        figures: dict[str, object] = {**found} | ({"by_layer": hurt} if layers else {})
        print(printable_json(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode()))
    elif hurt:
        print(tr("  the ten worst linear layers: relative change of their block's output"))
        for one in hurt[:_WORST]:
            print(f"  {one.linear:<22}{one.precision:<8}{one.share:.2e}")


def _given(**options: object) -> dict[str, Any]:
    """The options that have a value."""
    return {name: value for name, value in options.items() if value is not None}


def _options(given: Mapping[str, object]) -> dict[str, bool]:
    return {"--" + name.replace("_", "-"): True for name in given}


def _check_layers(bundle: Path, against: Path, manifest: Manifest) -> None:
    if (against / MANIFEST_NAME).is_file():
        raise ParameterError("--by-layer needs the checkpoint: give it with --against.")
    if manifest.graph != "issun" or manifest.precision.name == "float32":
        raise ParameterError("{path} has no linear layers quantized by issun.", path=bundle)


def _by_layer(
    against: Path, manifest: Manifest, text: str, tokenizer: str | None
) -> list[LayerSensitivity]:
    with needs_extra('Exporting needs {module}: pip install "issun[export]"'):
        from issun.benchmarks.by_layer import by_layer  # noqa: PLC0415
    total = manifest.architecture.n_layer
    with Bars({"layers": tr("running layer by layer")}) as progress:
        return by_layer(
            against,
            manifest,
            text,
            tokenizer=tokenizer,
            progress=lambda layer: progress("layers", layer, total),
        )


def _record(bundle: Path, measured: Manifest, kind: KVCacheType, found: Fidelity) -> None:
    """Add the figures to those that are already recorded in the bundle."""
    try:
        manifest = read_manifest(bundle)
        if manifest.bundle_id != measured.bundle_id:
            note(
                "The result was not recorded: {bundle} has been replaced meanwhile.", bundle=bundle
            )
            return
        recorded = manifest.fidelity | {kind: msgspec.to_builtins(found)}
        write_manifest(bundle, msgspec.structs.replace(manifest, fidelity=recorded))
    except OSError as error:
        note(
            "The result cannot be recorded in {bundle}: {reason}",
            bundle=bundle,
            reason=reason_of(error),
        )


def _print(kind: str, found: Fidelity) -> None:
    lines = [
        tr("{kind} KV cache compared with {against} in float32, on {text} ({positions:,} tokens)"),
        tr("  perplexity      {perplexity:.3f} ± {error:.3f}, float32 {reference_perplexity:.3f}"),
        tr("  ratio           {ratio:.5f} ± {ratio_error:.5f}"),
        tr("  KL divergence   mean {kl_mean:.5f}, median {kl_median:.5f}, 99 % below {kl_p99:.5f}"),
        tr("                  largest {kl_max:.5f}"),
        tr("  same top token  {agreement:.2%} of the tokens"),
    ]
    if found.identical is not None:
        lines.append(tr("  same answer     {identical:.0%} of {answers} for 100 tokens"))
    if found.clipped is not None:
        lines.append(tr("  clipped         {clipped:.4%} of keys and values"))
    if found.top:
        lines.append(tr("  KL over the {top:,} most likely tokens, the rest counted as one"))
    values = msgspec.to_builtins(found) | {"kind": kind}
    for line in lines:
        print(printable(line.format(**values)))
    print(tr("  by position     KL       same top token"))
    for band in found.bands:
        print(f"  {f'{band.start} - {band.stop - 1}':<14}{band.kl:8.5f}   {band.agreement:.2%}")
