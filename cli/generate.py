"""`issun generate`: one instruction, one answer."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any, cast

import typer

from issun.cli import options as opt
from issun.cli.language import note, printable, printable_json, tr
from issun.cli.stats import print_stats
from issun.runtime import Completion, Model, ParameterError
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
    kind = cast(Any, kv_cache)
    with Model.load(bundle, threads=threads, kv_cache=kind, notify=note) as model:
        stream = model.stream(
            model.prompt(instruction, input_text), make_params(model.manifest, **sampling)
        )
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
