"""Builds the embedded model: corpus, tokenizer, training, checkpoint, bundle, evaluation.

Run `python -m issun.training.embedded.build DIR` to repeat all of it on 2 CPU cores. DIR receives
the checkpoint `issun-embedded`, `bundle` (int8) and `evaluation.json`; `--install` copies the
bundle into the package.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import msgspec

from issun.export import ExportOptions, export
from issun.export.kinds import Uniform
from issun.training.embedded.corpus import corpus
from issun.training.embedded.pretrain import TEMPLATE, PretrainOptions, pretrain, record
from issun.training.embedded.vocabulary import SPECIAL, train_vocabulary

PACKAGED = Path(__file__).parents[2] / "runtime" / "embedded"
NAME = "issun-embedded"  # of the checkpoint, and therefore of the source in the manifest
_VOCABULARY_SEED, _VOCABULARY_RECORDS = 7, 40_000
_PRECISIONS: tuple[Uniform, ...] = ("float32", "int8", "int4")


def build(folder: Path, options: PretrainOptions) -> None:
    """Build the model in `folder`, or resume a build there; prints progress to stderr."""
    started = time.perf_counter()

    def report(text: str) -> None:
        print(f"[{time.perf_counter() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    checkpoint = folder / NAME
    checkpoint.mkdir(parents=True, exist_ok=True)
    vocabulary = checkpoint / "spiece.model"
    if not vocabulary.exists():
        sample = islice(corpus(_VOCABULARY_SEED), _VOCABULARY_RECORDS)
        train_vocabulary(map(record, sample), vocabulary)
        report("tokenizer trained")
    model = pretrain(
        vocabulary,
        options,
        folder / "state.pt",
        lambda step, loss: report(f"step {step:,} of {options.total_steps:,}: loss {loss:.4f}"),
    )
    model.save_pretrained(checkpoint, safe_serialization=True)
    roles = dict(zip(("cls", "unk", "bos", "eos", "pad", "sep", "mask"), SPECIAL, strict=True))
    (checkpoint / "tokenizer_config.json").write_text(
        json.dumps({f"{role}_token": token for role, token in roles.items()}, indent=2) + "\n"
    )
    (folder / "recipe.json").write_text(json.dumps(asdict(options), indent=2) + "\n")
    report(f"checkpoint with {model.num_parameters():,} parameters")
    bundles = [
        folder / ("bundle" if precision == "int8" else f"bundle-{precision}")
        for precision in _PRECISIONS
    ]
    template = folder / "template.json"
    template.write_bytes(msgspec.json.encode(TEMPLATE))
    for precision, bundle in zip(_PRECISIONS, bundles, strict=True):
        chosen = ExportOptions(precision=precision, template=template, force=bundle.exists())
        export(checkpoint, bundle, chosen)
    report("exported")
    # In a separate process: torch's busy-waiting threads would slow it down.
    command = [sys.executable, "-P", "-m", "issun.training.embedded.evaluation", *map(str, bundles)]
    command += ["--json", str(folder / "evaluation.json")]
    subprocess.run(command, check=True)
    report("evaluated")


def install(bundle: Path) -> None:
    """Replace the packaged bundle with `bundle`."""
    if PACKAGED.exists():
        shutil.rmtree(PACKAGED)
    shutil.copytree(bundle, PACKAGED)


def main() -> None:
    """Build with the options of the command line."""
    defaults = PretrainOptions()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--chat-steps", type=int, default=defaults.chat_steps)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--install", action="store_true")
    args = parser.parse_args()
    # Passive waiting between small operations is four times slower. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "ACTIVE")
    options = PretrainOptions(steps=args.steps, chat_steps=args.chat_steps, seed=args.seed)
    build(args.folder, options)
    if args.install:
        install(args.folder / "bundle")


if __name__ == "__main__":
    main()
