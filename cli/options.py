"""Options that several subcommands share, declared once."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from issun.cli.language import tr
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import ParameterError
from issun.runtime.files import guess_encoding

Bundle = Annotated[
    Path | None,
    typer.Argument(
        metavar="BUNDLE",
        help=tr("Folder of a bundle (default: the demonstration model)."),
        show_default=False,
    ),
]
Threads = Annotated[
    int | None, typer.Option(help=tr("Threads (default: physical cores)."), show_default=False)
]
KVCache = Annotated[
    str | None,
    typer.Option("--kv-cache", help=tr("KV cache type, if the bundle has it: float32 or int8.")),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help=tr(
            "Allow graphs with operators that issun does not write; only for bundles that "
            "you trust."
        ),
    ),
]
Stats = Annotated[bool, typer.Option("--stats", help=tr("Print speed and memory to stderr."))]

# The command line's sampling parameters: type and help text.
SAMPLING: dict[str, tuple[Any, str]] = {
    "temperature": (
        float,
        tr("0 always picks the most likely token (default: the bundle's value)."),
    ),
    "top_k": (int, tr("Keep only the k most likely tokens; 0 is off.")),
    "top_p": (
        float,
        tr("Keep the most likely tokens up to this cumulative probability; 1 is off."),
    ),
    "min_p": (
        float,
        tr("Keep tokens at least this likely relative to the most likely one; 0 is off."),
    ),
    "typical_p": (
        float,
        tr("Keep the most typical tokens up to this cumulative probability; 1 is off."),
    ),
    "repetition_penalty": (float, tr("Make tokens that have occurred less likely; 1 is off.")),
    "presence_penalty": (
        float,
        tr("Subtracted once from the logits of tokens in the answer; 0 is off."),
    ),
    "frequency_penalty": (float, tr("Subtracted per occurrence in the answer; 0 is off.")),
    "no_repeat_ngram_size": (int, tr("Never repeat a sequence of this many tokens; 0 is off.")),
    "top_n_sigma": (
        float,
        tr("Keep tokens within so many standard deviations of the largest logit; 0 is off."),
    ),
    "dynatemp_range": (
        float,
        tr("Change the temperature by up to this much with the entropy; 0 is off."),
    ),
    "dynatemp_exponent": (float, tr("Exponent of the entropy for --dynatemp-range (default: 1).")),
    "xtc_probability": (
        float,
        tr("Probability of excluding all top tokens but the least likely (XTC); 0 is off."),
    ),
    "xtc_threshold": (float, tr("Least probability of a top token for XTC (default: 0.1).")),
    "dry_multiplier": (float, tr("Penalty for extending a repetition (DRY); 0 is off.")),
    "dry_base": (float, tr("Growth of DRY's penalty per repeated token (default: 1.75).")),
    "dry_allowed_length": (
        int,
        tr("Tokens of a repetition from which on DRY penalizes it (default: 2)."),
    ),
    "dry_penalty_last_n": (int, tr("Latest tokens that DRY looks at (default: -1, all).")),
    "dry_sequence_breakers": (
        list[str],
        tr(r"Text across which DRY sees no repetition (\n: newline); may be repeated."),
    ),
    "mirostat": (int, tr("2 keeps the surprise of tokens near a target (Mirostat 2); 0 is off.")),
    "mirostat_tau": (float, tr("Target of Mirostat in bits (default: 5).")),
    "mirostat_eta": (float, tr("Learning rate of Mirostat (default: 0.1).")),
    "min_new_tokens": (int, tr("Minimum length of the answer in tokens.")),
    "max_new_tokens": (int, tr("Maximum length of the answer in tokens.")),
    "stop": (list[str], tr(r"End the answer before this text (\n: newline); may be repeated.")),
    "seed": (int, tr("The same seed gives the same answer.")),
    "lookup": (
        bool,
        tr("Use prompt lookup decoding, which drafts tokens from earlier text (default: on)."),
    ),
}


def with_sampling(
    command: Callable[..., None], names: Sequence[str] = tuple(SAMPLING)
) -> Callable[..., None]:
    """Add options for the sampling parameters `names` to `command`; `sampling` gets those given.

    The values are checked first, so that a mistake is reported before a model is loaded.
    """
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    del parameters["sampling"]
    for name in names:
        kind, text = SAMPLING[name]
        option: Any = Annotated[
            kind | None,
            typer.Option(help=text, show_default=False, rich_help_panel=tr("Sampling options")),
        ]
        parameters[name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option
        )

    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in names}
        command(sampling=_chosen(given), **arguments)

    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in parameters.items()}
    return run


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value not in (None, [])}
    for name in given.keys() & {"stop", "dry_sequence_breakers"}:
        given[name] = tuple(utf8(text).replace("\\n", "\n") for text in given[name])
    limits = {"max_new_tokens": max(100, given.get("min_new_tokens", 0))}
    SamplingParams(**(limits | given))
    return given


def stdin_error(raw: bytes, damaged: ParameterError) -> ParameterError:
    """The error that says how to convert `raw` to UTF-8; `damaged` if its encoding is unknown."""
    encoding = guess_encoding(raw)
    if encoding is None:
        return damaged
    fix = f"iconv -f {encoding} -t utf-8"
    if sys.platform == "win32":
        fix = "$OutputEncoding = [Text.Encoding]::UTF8"
    return ParameterError(
        "The text on stdin is {encoding}, not UTF-8. Convert it: `{fix}`",
        encoding=encoding,
        fix=fix,
    )


def utf8(argument: str) -> str:
    """Decode a command-line argument as UTF-8 in any locale; raises ParameterError."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ParameterError(
            "The argument {value!r} is not UTF-8.", value=os.fsencode(argument)
        ) from error
