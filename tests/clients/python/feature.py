"""What every client's script is made of: functions that each try one feature, and a report."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

URL = os.environ["ISSUN_URL"]  # of the server, without /v1
BASE_URL = URL + "/v1"
MODEL = os.environ["ISSUN_MODEL"]
KEY = "none"  # clients insist on one

QUESTION, ANSWER = "日本で一番高い山は?", "富士山"
ROLE = "あなたは「ずんだもん」なのだ。語尾に「なのだ」を付けてしゃべるのだ。"
EMBEDDINGS = "no embeddings"  # what the server says of them
CAPITAL, PARIS = "フランスの首都は?", "パリ"

Function = Callable[[], Any]


class Feature(NamedTuple):
    """One function; `limit` says why it cannot work here, where it cannot."""

    column: str
    name: str
    run: Function
    limit: str | None


_features: list[Feature] = []


def feature(column: str, name: str = "", *, limit: str | None = None) -> Callable[[Function], Any]:
    """Mark a function that raises where the feature of `column` does not work.

    `name` tells features of one column apart. What the function returns is shown as the answer.
    """

    def add(run: Function) -> Function:
        _features.append(Feature(column, name, run, limit))
        return run

    return add


def report(package: str) -> None:
    """Try every feature and print a JSON line for each; `package` is the one whose version counts.

    An argument on the command line chooses the features whose column or name contains it.
    """
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    print(json.dumps({"version": version(package)}), flush=True)
    for column, name, run, limit in _features:
        if chosen not in f"{column} {name}":
            continue
        start = time.monotonic()
        try:
            found, ok = _call(run), True
        except Exception as error:
            found, ok = _reason(error), False
            if chosen:
                traceback.print_exc()
        line = {"column": column, "name": name, "ok": ok, "limit": limit}
        took = round(time.monotonic() - start, 2)
        print(json.dumps(line | {"found": str(found)[:2000], "seconds": took}), flush=True)


def _call(run: Function) -> Any:
    found = run()
    return asyncio.run(found) if inspect.iscoroutine(found) else found


def _reason(error: BaseException) -> str:
    """The error with its causes, for clients that wrap what the server said."""
    said = re.sub(r"(for url|at) '?https?://\S+|For more information check: \S+", "", str(error))
    text = f"{type(error).__name__}: {said}"
    cause = error.__cause__ or error.__context__
    if cause is None or str(cause) in text or type(cause).__name__ == "HTTPStatusError":
        return text
    return f"{text} <- {_reason(cause)}"


def raises(call: Function, *words: str) -> str:
    """The error of `call`, which must hold all `words`."""
    try:
        found = call()
    except Exception as error:
        text = _reason(error)
        for word in words:
            assert word in text, text
        return text
    raise AssertionError(f"no error, but {found!r}")
