"""`issun finetune`: fine-tunes a checkpoint on instructions and chats."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from issun.cli.extras import needs_extra
from issun.cli.language import note, printable, tr
from issun.cli.options import ONLY_WITH, refuse, utf8
from issun.cli.progress import Bars
from issun.runtime.errors import ParameterError
from issun.training.recipe import Lora, Recipe

if TYPE_CHECKING:
    from issun.benchmarks.accuracy import Report, Table
    from issun.runtime import Model
    from issun.training.finetune import Outcome

_DEFAULT, _DEFAULT_LORA = Recipe(), Lora()
_WITH_LORA = Recipe(lora=_DEFAULT_LORA)
_SAMPLES = 100


def run(
    *,
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help=tr("Folder of a checkpoint, or a model id on the Hugging Face hub."),
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help=tr(
                "Instructions or chats: JSON, JSONL, CSV, TSV, Parquet, or .txt with one "
                "record per line."
            ),
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help=tr("Folder for the new run."))
    ],
    epochs: Annotated[int, typer.Option(help=tr("Number of epochs."))] = _DEFAULT.epochs,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help=tr(
                "Learning rate, constant over all steps (default: {rate}, with --lora {lora})."
            ).format(rate=_DEFAULT.learning_rate, lora=_WITH_LORA.learning_rate),
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help=tr("Records per batch on each device."))
    ] = _DEFAULT.batch_size,
    gradient_accumulation: Annotated[
        int, typer.Option(help=tr("Batches per optimizer step."))
    ] = _DEFAULT.gradient_accumulation,
    max_length: Annotated[
        int | None,
        typer.Option(
            help=tr("Maximum length of a record in tokens (default: the model's context length).")
        ),
    ] = _DEFAULT.max_length,
    truncate: Annotated[
        bool,
        typer.Option("--truncate", help=tr("Truncate longer records instead of rejecting them.")),
    ] = _DEFAULT.truncate,
    optimizer: Annotated[
        str, typer.Option(help="auto, adamw, adamw_bnb_8bit, adafactor")
    ] = _DEFAULT.optimizer,
    seed: Annotated[
        int, typer.Option(help=tr("The same seed gives the same run."))
    ] = _DEFAULT.seed,
    lora: Annotated[
        bool,
        typer.Option("--lora", help=tr("Train a LoRA adapter instead of all weights.")),
    ] = False,
    rank: Annotated[
        int | None,
        typer.Option(help=tr("Rank of the adapter."), show_default=str(_DEFAULT_LORA.rank)),
    ] = None,
    alpha: Annotated[
        int | None,
        typer.Option(help=tr("The adapter is scaled by alpha / rank (default: twice the rank).")),
    ] = None,
    target_modules: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help=tr(
                "Linear layers that the adapter changes, separated by commas (default: all of the "
                "blocks)."
            ),
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FILE",
            help=tr(
                "Prompt format of the records (default: alpaca-japanese for GPT-2, else the "
                "model's own)."
            ),
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=tr("Questions to ask after each epoch, as TOML.")),
    ] = None,
    samples: Annotated[int, typer.Option(help=tr("Answers to generate per question."))] = _SAMPLES,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate/--no-evaluate", help=tr("Evaluate after each epoch by asking questions.")
        ),
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help=tr("Resume the run in DIR, with the same options."))
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help=tr("Folder or hub id of the tokenizer, if it is not in the checkpoint."),
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help=tr("Revision on the hub."))] = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help=tr("Access token for the hub."))
    ] = None,
) -> None:
    """Fine-tune `base` and print a table of the epochs."""
    recipe = Recipe(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        gradient_accumulation=gradient_accumulation,
        max_length=max_length,
        truncate=truncate,
        optimizer=optimizer,
        seed=seed,
        lora=_lora(lora, rank, alpha, target_modules),
    )
    with needs_extra('Fine-tuning needs {module}: pip install "issun[train]"'):
        from issun.training.finetune import finetune  # noqa: PLC0415
        from issun.training.run import is_run  # noqa: PLC0415
    accuracy = Accuracy(table, samples) if evaluate else None
    try:
        with Bars({"train": tr("training"), "evaluate": tr("evaluating")}) as progress:
            outcome = finetune(
                utf8(base),
                data,
                output,
                recipe,
                evaluation=accuracy,
                resume=resume,
                template=None if template is None else utf8(template),
                tokenizer=None if tokenizer is None else utf8(tokenizer),
                revision=revision,
                token=token,
                progress=progress,
                notify=note,
            )
    except KeyboardInterrupt:
        if is_run(output):
            note("Stopped. Resume with: {command}", command=_resuming_command())
        raise
    _print_table(outcome)
    first, last = outcome.epochs[0], outcome.epochs[-1]
    trained = output / f"epoch-{outcome.best or last['epoch']}"
    options = {"--template": template}
    if lora:
        options = {
            "--adapter": str(trained),
            "--template": template or _named(outcome.template),
            "--tokenizer": tokenizer,
            "--revision": revision,
        }
    note(
        "{output}: loss {first:.4f} in epoch 1, {last:.4f} in epoch {epochs}. Next: {command}",
        output=output,
        first=first["loss"],
        last=last["loss"],
        epochs=last["epoch"],
        command=_export_command(base if lora else str(trained), options),
    )


def _export_command(source: str, options: dict[str, str | None]) -> str:
    """The command that exports `source` with those of the options that have a value."""
    given = [(name, value) for name, value in options.items() if value is not None]
    words = ["issun", "export", source, *chain(*given), "-o", "BUNDLE"]
    return printable(shlex.join(words))


def _named(template: str) -> str | None:
    """The value of --template with which an export takes this format; a model's own needs none."""
    from issun.export.chat_template import NAME  # noqa: PLC0415

    return None if template == NAME else template


def _lora(
    lora: bool,
    rank: int | None,
    alpha: int | None,
    target_modules: str | None,
) -> Lora | None:
    """The adapter's shape; raises ParameterError for options that only `--lora` uses."""
    shape = {"rank": rank, "alpha": alpha, "target_modules": target_modules}
    given: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
    if not lora:
        options = {f"--{name.replace('_', '-')}": True for name in given}
        refuse(ONLY_WITH, options, other="--lora")
        return None
    if target_modules is not None:
        given["target_modules"] = tuple(name.strip() for name in utf8(target_modules).split(","))
    return Lora(**given)


class Accuracy:
    """Evaluates with a table of questions, as `issun evaluate` does."""

    def __init__(self, table: Path | None, samples: int) -> None:
        """Read the table; raises TableError or ParameterError."""
        from issun.benchmarks.accuracy import read_table  # noqa: PLC0415

        if samples < 1:
            raise ParameterError(
                "{name} is {value!r}, it must be a whole number with {bounds}.",
                name="samples",
                value=samples,
                bounds="1 <= samples",
            )
        self.table: Table = read_table(table)
        self.samples = samples

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a resumed run must not change."""
        digest = hashlib.sha256(repr(self.table).encode()).hexdigest()
        return {"table": digest[:16], "samples": self.samples}

    def __call__(self, model: Model, progress: Callable[[int, int], None]) -> Report:
        """Ask the model all questions."""
        from issun.benchmarks.accuracy import evaluate  # noqa: PLC0415
        from issun.benchmarks.asking import Evaluation  # noqa: PLC0415

        return evaluate(
            model, Evaluation(table=self.table, samples=self.samples), progress=progress
        )


def _print_table(outcome: Outcome) -> None:
    print(tr("epoch    loss   right"))
    for entry in outcome.epochs:
        rate = "-" if entry["rate"] is None else f"{entry['rate']:.1%}"
        mark = "  " + tr("best") if entry["epoch"] == outcome.best else ""
        print(f"{entry['epoch']:>5}  {entry['loss']:>6.4f}  {rate:>6}{mark}")


def _resuming_command() -> str:
    """This command with --resume and without the token, which must not be shown."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    shown = [
        word
        for before, word in pairwise(["", *words])
        if "--token" not in (before, word) and not word.startswith("--token=")
    ]
    return printable(shlex.join(["issun", *shown, "--resume"]))
