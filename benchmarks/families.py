"""Compares how fast each family decodes per byte that a token reads, with GPT-2's 1.3 B shape.

`python -m issun.benchmarks.families DIR [--precision int4] [--layers 4] [--rounds 5]` makes
checkpoints of a few layers in the shapes of published models, exports them, and decodes with all
of them interleaved after a 128-token prompt. The bytes are those of the linears and the head; an
untied embedding is not among them. Bundles in DIR are used again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from issun.benchmarks import suite
from issun.benchmarks.errors import BenchError
from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.measured import EngineResult, Results, speed
from issun.benchmarks.shapes import SHAPES
from issun.export import ExportOptions, export

DEPTH = 128  # tokens of the prompt
REFERENCE = ("gpt2", "1b")
COMPARED = (
    REFERENCE,
    ("gpt2", "1.7b"),
    ("gpt-neox", "3.6b"),
    ("gpt-neox", "line-3.6b"),
    ("llama", "1.8b"),
    ("llama", "sarashina-1b"),
    ("mistral", "1.5b"),
    ("qwen2", "1.5b"),
    ("qwen3", "1.7b"),
)
_LAYERS = ("n_layer", "num_hidden_layers")
_CONTEXT = ("n_positions", "n_ctx", "max_position_embeddings")
_MAX_CONTEXT = 1024  # rotary tables grow with the context, and nothing longer is measured


def make_bundle(folder: Path, family: str, size: str, layers: int, precision: str) -> Path:
    """The bundle of a shape with so many layers, made unless `folder` has it."""
    bundle = folder / f"{family}-{size}-{layers}-{precision}"
    if bundle.exists():
        return bundle
    checkpoint = folder / f"{family}-{size}"
    config = dict(SHAPES[family][size])
    config |= {name: min(layers, config[name]) for name in _LAYERS if name in config}
    config |= {name: min(_MAX_CONTEXT, config[name]) for name in _CONTEXT if name in config}
    shutil.rmtree(checkpoint, ignore_errors=True)
    make_checkpoint(checkpoint, config, dtype="float16")
    unfitted = False if precision == "int4" else None  # the weights are random
    export(checkpoint, bundle, ExportOptions(precision=precision, gptq=unfitted))  # type: ignore[arg-type]
    shutil.rmtree(checkpoint)
    return bundle


def measure(bundles: list[Path], output: Path, *, rounds: int, tokens: int) -> Results:
    """Decode with all bundles interleaved; an existing `output` is replaced."""
    output.unlink(missing_ok=True)
    request = suite.Request(
        bundles=bundles,
        rounds=rounds,
        prefills=(),
        depths=(DEPTH,),
        contexts=(),
        new_tokens=tokens,
    )
    return suite.run(request, output, None, resume=False, report=_report)


def read_rate(engine: EngineResult) -> float:
    """Bytes of weights per second that decoding reads; raises BenchError if it was not measured."""
    rate = speed(engine, f"decode-{DEPTH}")
    if rate is None:
        raise BenchError(
            "{name} was not measured: {reason}", name=engine.name, reason=engine.reason
        )
    return rate * engine.weight_bytes


def table(results: Results) -> str:
    """One line for each bundle, relative to the first one."""
    reference = read_rate(results.engines[0])
    lines = ["bundle, MB read a token, tokens/s, GB/s, relative"]
    for engine in results.engines:
        rate = read_rate(engine)
        megabytes, per_second = engine.weight_bytes / 1e6, rate / engine.weight_bytes
        lines.append(
            f"{engine.name:<28} {megabytes:8.1f} {per_second:8.1f} {rate / 1e9:7.1f} "
            f"{rate / reference:7.2f}"
        )
    return "\n".join(lines)


def _report(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    """Make the bundles, measure them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="families")
    parser.add_argument("folder", type=Path, help="for the bundles and results.json")
    parser.add_argument("--precision", choices=("float32", "int8", "int4"), default="int4")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="decoded in each round")
    parser.add_argument("--shapes", nargs="*", metavar="FAMILY/SIZE", help="default: a selection")
    args = parser.parse_args()
    shapes: tuple[tuple[str, str], ...] = COMPARED
    if args.shapes:
        named = [tuple(name.split("/", 1)) for name in args.shapes]
        unknown = [n for n in named if len(n) != 2 or n[1] not in SHAPES.get(n[0], {})]
        if unknown:
            parser.error(f"there is no shape {'/'.join(unknown[0])}")
        shapes = (REFERENCE, *((n[0], n[1]) for n in named))
    args.folder.mkdir(parents=True, exist_ok=True)
    bundles = []
    for family, size in dict.fromkeys(shapes):
        _report(f"{family} {size}")
        bundles.append(make_bundle(args.folder, family, size, args.layers, args.precision))
    output = args.folder / f"results-{args.precision}.json"
    print(table(measure(bundles, output, rounds=args.rounds, tokens=args.tokens)))


if __name__ == "__main__":
    main()
