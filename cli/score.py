"""`issun score`: the perplexity of a text, or continuations of a prompt by their probability."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer

from issun.cli import options as opt
from issun.cli.language import note, printable, printable_json, tr
from issun.cli.progress import Bars
from issun.runtime import Model, ParameterError, RankedContinuation, TextScore
from issun.runtime.errors import check_choice
from issun.runtime.files import read_text, user_path
from issun.runtime.scores import BY, By


def run(
    *,
    bundle: opt.Bundle = None,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help=tr("Text to score, in UTF-8."))
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help=tr("Also print every token of the text."))
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(help=tr("Tokens that are read together (default: the context).")),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help=tr("Tokens from one window to the next; more is faster (default: half a window).")
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help=tr("Raw text that the continuations follow.")),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help=tr("An instruction that the continuations answer, instead.")
        ),
    ] = None,
    continuation: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help=tr("A text to rank; repeat the option for each.")),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rank",
            metavar="FILE",
            help=tr("Lines of JSON with prompt or instruction, and a list of continuations."),
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help=tr("Rank by mean of a token or byte, or total (default: token).")),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=tr("Print the results as JSON."))] = False,
    threads: opt.Threads = None,
    kv_cache: opt.KVCache = None,
    trust: opt.Trust = False,
) -> None:
    """Score a text, or rank continuations."""
    of_text = {"--tokens": tokens or None, "--window": window, "--stride": stride}
    of_ranking = {
        "--prompt": prompt,
        "--instruction": instruction,
        "--continuation": continuation or None,
        "--by": by,
    }
    _check_combination(text, rows, of_text, of_ranking)
    by = by or "token"
    check_choice("by", by, BY)
    content = None if text is None else read_text(user_path(text))
    if content is None:
        queries = list(_queries(rows, prompt, instruction, continuation))
        if not queries:
            raise ParameterError("There are no continuations to rank.")
    kind = cast(Any, kv_cache)
    with Model.load(bundle, threads=threads, kv_cache=kind, trust=trust, notify=note) as model:
        if content is not None:
            with Bars({"score": tr("scoring")}) as bars:
                score = model.score_text(
                    content,
                    window=window,
                    stride=stride,
                    progress=lambda done, total: bars("score", done, total),
                )
            _show_text(model, score, tokens=tokens, as_json=as_json)
            return
        for query in queries:
            ranked = model.rank(query.prompt_for(model), query.continuations, by=cast(By, by))
            _show_ranking(query, ranked, titled=rows is not None, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Query:
    """A row of --rank, or what the options ask for."""

    continuations: list[str]
    prompt: str | None = None
    instruction: str | None = None
    input: str | None = None

    def prompt_for(self, model: Model) -> str | list[int]:
        if self.instruction is not None:
            return model.prompt(self.instruction, self.input)
        return self.prompt or ""


def _check_combination(
    text: Path | None, rows: Path | None, of_text: dict[str, Any], of_ranking: dict[str, Any]
) -> None:
    """Raise ParameterError unless exactly one thing is asked for, with its own options."""
    given = [name for name, value in of_ranking.items() if value is not None]
    single = [name for name in given if name != "--by"]
    asked = [
        *(["--text"] if text is not None else []),
        *(["--rank"] if rows is not None else []),
        *(["--continuation"] if single else []),
    ]
    if len(asked) != 1:
        raise ParameterError(
            "Give one of --text FILE, --rank FILE, and --prompt or --instruction with "
            "--continuation."
        )
    wrong = of_ranking if text is not None else of_text
    set_wrong = {name: value is not None for name, value in wrong.items()}
    opt.refuse(opt.NOT_WITH, set_wrong, other=asked[0])


def _queries(
    rows: Path | None,
    prompt: str | None,
    instruction: str | None,
    continuations: list[str] | None,
) -> Iterator[_Query]:
    if rows is None:
        texts = [opt.utf8(text) for text in continuations or ()]
        values = {"prompt": prompt, "instruction": instruction}
        query = _Query(texts, **{k: None if v is None else opt.utf8(v) for k, v in values.items()})
        _check_query(query)
        yield query
        return
    path = user_path(rows)
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            query = msgspec.json.decode(line, type=_Query)
            _check_query(query)
        except (msgspec.MsgspecError, ParameterError) as error:
            raise ParameterError(
                "{path}, line {line}: {reason}", path=path, line=number, reason=error
            ) from error
        yield query


def _check_query(query: _Query) -> None:
    if (query.prompt is None) == (query.instruction is None):
        raise ParameterError("Give either a prompt or an instruction.")
    if query.input is not None and query.instruction is None:
        raise ParameterError("An input needs an instruction.")
    if not query.continuations:
        raise ParameterError("There are no continuations to rank.")


def _show_text(model: Model, score: TextScore, *, tokens: bool, as_json: bool) -> None:
    first = len(score.ids) - len(score.logprobs)
    rows = [
        (token, _spelled(model, token), float(score.logprobs[i - first]) if i >= first else None)
        for i, token in enumerate(score.ids)
    ]
    if as_json:
        found: dict[str, Any] = {
            "bundle": model.manifest.bundle_id,
            "precision": model.manifest.precision.name,
            "kv_cache": model.decoder.kv_cache,
            "scored_tokens": len(score.logprobs),
            "bytes": score.num_bytes,
            "perplexity": score.perplexity,
            "perplexity_error": score.error if len(score.logprobs) > 1 else None,
            "nats_per_token": -score.mean,
            "bits_per_byte": score.bits_per_byte,
        }
        if tokens:
            found["tokens"] = [{"id": i, "text": t, "logprob": p} for i, t, p in rows]
        print(printable_json(json.dumps(found, ensure_ascii=False, indent=2)))
        return
    for token, spelled, logprob in rows if tokens else ():
        shown = f"{'-':>9}" if logprob is None else f"{logprob:9.4f}"
        print(printable(f"{shown}  {token:>6}  {spelled!r}"))
    lines = [
        tr("scored tokens   {tokens:,}"),
        tr("perplexity      {perplexity:.4f} ± {error:.4f}"),
        tr("nats per token  {nats:.5f}"),
        tr("bits per byte   {bits:.5f}"),
    ]
    for line in lines:
        print(
            line.format(
                tokens=len(score.logprobs),
                perplexity=score.perplexity,
                error=score.error,
                nats=-score.mean,
                bits=score.bits_per_byte,
            )
        )


def _spelled(model: Model, token: int) -> str:
    return model.tokenizer.piece(token).decode("utf-8", "replace")


def _show_ranking(
    query: _Query, ranked: list[RankedContinuation], *, titled: bool, as_json: bool
) -> None:
    if as_json:
        found = [
            asdict(one) | {"total": one.total, "per_token": one.per_token, "per_byte": one.per_byte}
            for one in ranked
        ]
        print(printable_json(json.dumps(found, ensure_ascii=False)))
        return
    if titled:
        print(printable(query.prompt or query.instruction or ""))
    print(tr("per token  per byte      total  tokens  continuation"))
    for one in ranked:
        print(
            f"{one.per_token:9.4f}  {one.per_byte:8.4f}  {one.total:9.4f}  {len(one.ids):6}  "
            + printable(one.text)
        )
