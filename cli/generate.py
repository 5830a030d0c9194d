"""`issun generate`: answers one instruction."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from issun.cli import options as opt
from issun.cli.language import note, printable, printable_json, tr
from issun.cli.n_best import Beams, BestOf, Count, LengthPenalty, NBest
from issun.cli.stats import print_stats
from issun.runtime import Completion, Model, ParameterError
from issun.runtime.decoding.answer import Stream
from issun.runtime.defaults import make_params
from issun.runtime.files import decode_utf8, read_text, user_path
from issun.runtime.manifest import read_manifest

_PATH = re.compile(r"\.{0,2}/|~" + (r"|\.{0,2}\\|[A-Za-z]:" if sys.platform == "win32" else ""))


@opt.with_sampling
def run(
    *,
    first: Annotated[
        str | None,
        typer.Argument(
            metavar="BUNDLE",
            help=tr("Folder of a bundle (default: the demonstration model)."),
            show_default=False,
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT",
            help=tr("The instruction, alone or after the bundle; - reads it from stdin."),
            show_default=False,
        ),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(metavar="TEXT", help=tr("The instruction, as an option."))
    ] = None,
    input_text: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="TEXT",
            help=tr("Input text for the instruction; - reads it from stdin."),
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=tr("Print the answer with its timings as JSON."))
    ] = False,
    json_schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=tr("Make the answer follow the JSON schema in this file.")
        ),
    ] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help=tr("Make the answer one of these texts; repeat the option for each."),
        ),
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help=tr("Make the answer match this regular expression.")),
    ] = None,
    beams: Beams = None,
    length_penalty: LengthPenalty = None,
    n: Count = None,
    best_of: BestOf = None,
    stats: opt.Stats = False,
    threads: opt.Threads = None,
    kv_cache: opt.KVCache = None,
    trust: opt.Trust = False,
    adapter: opt.Adapter = None,
    sampling: dict[str, Any],
) -> None:
    """Stream the answer to an instruction to stdout, or print the best of several."""
    bundle, instruction = _bundle_and_instruction(first, second, instruction)
    if instruction == "-" and input_text == "-":
        raise ParameterError("Only one of the instruction and --input can be read from stdin.")
    instruction = _text(instruction)
    input_text = None if input_text is None else _text(input_text)
    if not instruction.strip():
        raise ParameterError("The instruction is empty.")
    constraint_request = _requested_constraint(json_schema, choices, regex)
    n_best = NBest(beams, length_penalty, n, best_of)
    n_best.check(sampling, constraint_request[0] if constraint_request else None)
    kind, chosen = cast(Any, kv_cache), opt.one_adapter(adapter)
    if chosen and n_best.given():
        raise ParameterError("Give --adapter, or options for several answers or beams, not both.")
    adapters = [chosen] if chosen else []
    with Model.load(
        bundle, threads=threads, kv_cache=kind, trust=trust, adapters=adapters, notify=note
    ) as model:
        if n_best.given():
            answers = n_best.answers(model, model.prompt(instruction, input_text), sampling)
            _note_demonstration(bundle)
            _print_answers(answers, as_json=as_json, several=n is not None, stats=stats)
            return
        stream, accepts = _start(model, instruction, input_text, constraint_request, sampling)
        _note_demonstration(bundle)
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
    if not accepts(completion):
        note("The answer ended before it was complete: raise --max-new-tokens or leave out --stop.")
        raise typer.Exit(1)


def _note_demonstration(bundle: Path | None) -> None:
    if bundle is None:
        note("[No bundle is named, so the demonstration model answers: issun generate BUNDLE TEXT]")


def _print_answers(answers: list[Completion], *, as_json: bool, several: bool, stats: bool) -> None:
    """Print answers with an empty line between them; as JSON, a list if `several`."""
    if as_json:
        figures = [_figures(answer) | {"score": answer.score} for answer in answers]
        shown = figures if several else figures[0]
        print(printable_json(json.dumps(shown, ensure_ascii=False, indent=2)))
    else:
        print(printable("\n\n".join(answer.text for answer in answers)))
    if stats:
        for answer in answers:
            print_stats(answer)


def _start(
    model: Model,
    instruction: str,
    input_text: str | None,
    constraint_request: tuple[str, Any] | None,
    sampling: dict[str, Any],
) -> tuple[Stream, Callable[[Completion], bool]]:
    """Start the answer; also returns a predicate for complete answers."""
    params = make_params(model.manifest, **sampling)
    adapter = next(iter(model.adapters), None)

    def make_prompt(line: str) -> list[int]:
        return model.prompt("\n".join(filter(None, (instruction, line))), input_text)

    if not constraint_request:
        stream = model.stream(make_prompt(""), params, adapter=adapter)
        return stream, lambda completion: True
    from issun.runtime.filling.fill import compile_schema, fill  # noqa: PLC0415

    name, value = constraint_request
    prompt = make_prompt("")
    room = max(1, min(params.max_new_tokens, model.decoder.n_positions - len(prompt)))
    if name == "json_schema" and (form := compile_schema(model, value, max_tokens=room)):
        stream = fill(model, form, make_prompt, instruction, params, adapter=adapter)
        return stream, lambda completion: completion.finish_reason == "stop"
    constraint = getattr(model.constraints, name)(value, max_tokens=room)
    stream = model.stream(prompt, replace(params, constraint=constraint), adapter=adapter)
    return stream, lambda completion: constraint.accepts(completion.ids)


def _requested_constraint(
    schema: Path | None, choices: list[str] | None, regex: str | None
) -> tuple[str, Any] | None:
    """The requested constraint: the name of its factory method, and the argument."""
    requested: dict[str, Any] = {}
    if schema is not None:
        requested["json_schema"] = _schema(schema)
    if choices:
        requested["choices"] = [opt.utf8(text) for text in choices]
    if regex is not None:
        requested["regex"] = opt.utf8(regex)
    if len(requested) > 1:
        raise ParameterError("Give only one of {requested}.", requested=" and ".join(requested))
    return next(iter(requested.items()), None)


def _bundle_and_instruction(
    first: str | None, second: str | None, option: str | None
) -> tuple[Path | None, str]:
    """The bundle and the instruction; the first argument may be either.

    Raises ParameterError if there is no instruction or more than one, and BundleError if the only
    argument is a folder but not a bundle.
    """
    if second is not None and option is not None:
        raise ParameterError("Give the instruction once: as an argument, or with --instruction.")
    instruction = second if option is None else option
    if instruction is None and first is not None and not _looks_like_bundle(first):
        if os.path.isfile(first):  # noqa: PTH113 - no error for texts too long for a file name
            note(
                "[{path} is a file, but its name was taken as the instruction; to read the "
                "file: - < FILE]",
                path=first,
            )
        return None, first
    bundle = None if first is None else user_path(first)
    if instruction is None:
        if bundle is not None:
            read_manifest(bundle)
        raise ParameterError("There is no instruction: issun generate [BUNDLE] TEXT")
    return bundle, instruction


def _looks_like_bundle(argument: str) -> bool:
    """True for a folder, and for an argument that begins like a path."""
    return bool(_PATH.match(argument)) or os.path.isdir(argument)  # noqa: PTH112 - as above


def _schema(path: Path) -> dict[str, Any]:
    try:
        schema = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            "{path} is not a JSON schema: {reason}", path=path, reason=error
        ) from error
    if not isinstance(schema, dict):
        raise ParameterError(
            "{path} is not a JSON schema: {reason}", path=path, reason=f"it is {schema!r:.50}"
        )
    return schema


def _text(argument: str) -> str:
    if argument != "-":
        return opt.utf8(argument)
    raw = sys.stdin.buffer.read()
    try:
        return decode_utf8(raw).rstrip("\r\n")
    except UnicodeDecodeError as error:
        damaged = ParameterError(
            "The text on stdin is not UTF-8 (byte {position}).", position=error.start
        )
        raise opt.stdin_error(raw, damaged) from error


def _figures(completion: Completion) -> dict[str, Any]:
    timings = completion.timings
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "ids": completion.ids,
        "timings": timings.report(),
    }
