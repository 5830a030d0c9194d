"""`issun generate`: one instruction, one answer."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from issun.cli import options as opt
from issun.cli.language import note, printable, printable_json, tr
from issun.cli.stats import print_stats
from issun.runtime import Completion, Model, ParameterError
from issun.runtime.files import reason_of, user_path
from issun.runtime.model import make_params


@opt.with_sampling
def run(
    *,
    bundle: opt.Bundle = None,
    instruction: Annotated[
        str, typer.Option(metavar="TEXT", help=tr("The instruction; - reads it from stdin."))
    ],
    input_text: Annotated[
        str | None,
        typer.Option("--input", metavar="TEXT", help=tr("Text for it; - reads it from stdin.")),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=tr("Print the answer and its figures as JSON."))
    ] = False,
    json_schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=tr("The answer follows the JSON schema in this file.")),
    ] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help=tr("The answer is one of these texts; give it several times.")
        ),
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help=tr("The answer matches this regular expression.")),
    ] = None,
    stats: opt.Stats = False,
    threads: opt.Threads = None,
    kv_cache: opt.KVCache = None,
    sampling: dict[str, Any],
) -> None:
    """Answer an instruction on stdout, as it comes."""
    if instruction == "-" and input_text == "-":
        raise ParameterError("Only one of --instruction and --input can be read from stdin.")
    instruction = _text(instruction)
    input_text = None if input_text is None else _text(input_text)
    if not instruction.strip():
        raise ParameterError("The instruction is empty.")
    wanted = _wanted(json_schema, choices, regex)
    kind = cast(Any, kv_cache)
    with Model.load(bundle, threads=threads, kv_cache=kind, notify=note) as model:
        params = make_params(model.manifest, **sampling)
        prompt = model.prompt(instruction, input_text)
        constraint = None
        if wanted:
            name, value = wanted
            room = min(params.max_new_tokens, model.decoder.n_positions - len(prompt))
            constraint = getattr(model.constraints, name)(value, room=max(1, room))
        stream = model.stream(prompt, replace(params, constraint=constraint))
        if as_json:
            completion = stream.finish()
            print(printable_json(json.dumps(_figures(completion), ensure_ascii=False, indent=2)))
        else:
            for segment in stream:
                print(printable(segment.text), end="", flush=True)
            print()
            completion = stream.finish()
        if stats:
            print_stats(completion)
    if constraint and not constraint.accepts(completion.ids):
        note("The answer was cut before it was whole: raise --max-new-tokens or leave out --stop.")
        raise typer.Exit(1)


def _wanted(
    schema: Path | None, choices: list[str] | None, regex: str | None
) -> tuple[str, Any] | None:
    """Which constraint is asked for, by the name of what makes it, and of what."""
    asked: dict[str, Any] = {}
    if schema is not None:
        asked["json_schema"] = _schema(schema)
    if choices:
        asked["choices"] = [opt.utf8(text) for text in choices]
    if regex is not None:
        asked["regex"] = opt.utf8(regex)
    if len(asked) > 1:
        raise ParameterError("Give one of {asked}, not both.", asked=" and ".join(asked))
    return next(iter(asked.items()), None)


def _schema(path: Path) -> dict[str, Any]:
    try:
        schema = json.loads(user_path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise ParameterError("{path} is no JSON schema: {reason}", path=path, reason=reason) from (
            error
        )
    if not isinstance(schema, dict):
        raise ParameterError(
            "{path} is no JSON schema: {reason}", path=path, reason=f"it is {schema!r:.50}"
        )
    return schema


def _text(argument: str) -> str:
    if argument != "-":
        return opt.utf8(argument)
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ParameterError(
            "The text on stdin is not UTF-8 (byte {position}).", position=error.start
        ) from error


def _figures(completion: Completion) -> dict[str, Any]:
    timings = completion.timings
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "ids": completion.ids,
        "timings": asdict(timings) | {"tokens_per_second": timings.tokens_per_second},
    }
