"""Counts right answers in JSON: `python -m issun.benchmarks.structured BUNDLE`.

The same questions are asked greedily as free text, with choices, as JSON constrained by a schema's
grammar, and as JSON generated value by value. A right free-text answer contains all words; in JSON
every string must contain its word, and every other value must be equal.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from issun.runtime import Completion, Model, ParameterError, SamplingError, SamplingParams
from issun.runtime.filling.fill import MakePrompt, compile_schema, fill_many

_SLOTS = 8
_GREEDY = SamplingParams(temperature=0, max_new_tokens=100)
_CAPITALS = """
フランス=パリ ドイツ=ベルリン イタリア=ローマ スペイン=マドリード イギリス=ロンドン
ロシア=モスクワ ギリシャ=アテネ ポルトガル=リスボン オーストリア=ウィーン
ハンガリー=ブダペスト 中国=北京 韓国=ソウル タイ=バンコク ベトナム=ハノイ イラク=バグダッド
トルコ=アンカラ エジプト=カイロ ケニア=ナイロビ ガーナ=アクラ カナダ=オタワ キューバ=ハバナ
ペルー=リマ チリ=サンティアゴ オーストラリア=キャンベラ
"""
_CONTINENTS = {
    "ヨーロッパ": 10,
    "アジア": 6,
    "アフリカ": 3,
    "北アメリカ": 2,
    "南アメリカ": 2,
    "オセアニア": 1,
}
_PREFECTURES = """
北海道=札幌市=北海道地方 岩手県=盛岡市=東北地方 宮城県=仙台市=東北地方
福島県=福島市=東北地方 茨城県=水戸市=関東地方 栃木県=宇都宮市=関東地方
埼玉県=さいたま市=関東地方 神奈川県=横浜市=関東地方 新潟県=新潟市=中部地方
石川県=金沢市=中部地方 長野県=長野市=中部地方 愛知県=名古屋市=中部地方 三重県=津市=近畿地方
滋賀県=大津市=近畿地方 大阪府=大阪市=近畿地方 兵庫県=神戸市=近畿地方 島根県=松江市=中国地方
広島県=広島市=中国地方 香川県=高松市=四国地方 愛媛県=松山市=四国地方 福岡県=福岡市=九州地方
熊本県=熊本市=九州地方 鹿児島県=鹿児島市=九州地方 沖縄県=那覇市=九州地方
"""
_SUMS = "3+4 12+9 25+17 8+30 19+6 14+14 27+2 5+28 11-4 20-13 30-9 18-5 6*7 9*9 8*3 2*5 7*7 4*6"


@dataclass(frozen=True, slots=True)
class Task:
    """Questions with a schema, and for each question the right values by property."""

    name: str
    schema: dict[str, Any]
    questions: list[str]
    right: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one task with one method."""

    method: str
    right: int
    valid: int | None  # valid JSON answers; None for plain text
    truncated: int
    tokens: int  # prompt and answer
    seconds: float


def tasks() -> list[Task]:
    """The tasks, about facts that the demonstration model knows."""
    capitals = [pair.split("=") for pair in _CAPITALS.split()]
    continents = [name for name, count in _CONTINENTS.items() for _ in range(count)]
    prefectures = [row.split("=") for row in _PREFECTURES.split()]
    text, city = {"type": "string"}, {"enum": [capital for _, capital in capitals]}
    part, region = (
        {"enum": list(_CONTINENTS)},
        {"enum": list(dict.fromkeys(r for *_, r in prefectures))},
    )
    sums = _SUMS.split()
    of = [f"{country}の首都は?" for country, _ in capitals]
    about = [f"{country}について教えて" for country, _ in capitals]
    places = [f"{name}の県庁所在地と地方を教えて" for name, *_ in prefectures]
    cities = [capital for _, capital in capitals]
    return [
        _task("capital, string", {"首都": text}, of, [cities]),
        _task("capital, English name", {"capital": text}, of, [cities]),
        _task("capital, enum", {"首都": city}, of, [cities]),
        _task("capital and continent", {"首都": text, "大陸": part}, about, [cities, continents]),
        _task(
            "seat and region",
            {"県庁所在地": text, "地方": region},
            places,
            [[seat for _, seat, _ in prefectures], [region for *_, region in prefectures]],
        ),
        _task(
            "sum, integer",
            {"答え": {"type": "integer"}},
            [f"{s.replace('*', '×')}は?" for s in sums],
            [[_compute(s) for s in sums]],
        ),
        _task(
            "yes or no",
            {"首都": {"type": "boolean"}},
            [
                f"{city}は{country}の首都ですか?"
                for (country, _), city in zip(capitals, cities[::2] + cities[1::2], strict=True)
            ],
            [[a == b for a, b in zip(cities, cities[::2] + cities[1::2], strict=True)]],
        ),
    ]


def _compute(text: str) -> int:
    sign = next(sign for sign in "+-*" if sign in text)
    first, second = map(int, text.split(sign))
    return {"+": first + second, "-": first - second, "*": first * second}[sign]


def _task(
    name: str, properties: dict[str, Any], questions: list[str], columns: Sequence[Sequence[Any]]
) -> Task:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    rows = zip(*columns, strict=True)
    return Task(name, schema, questions, [dict(zip(properties, row, strict=True)) for row in rows])


def measure(model: Model, task: Task) -> list[Result]:
    """Run `task` with every method that it supports."""
    found = [_run("free text", task, lambda: _plain(model, task, _GREEDY))]
    ((_, first), *rest) = task.schema["properties"].items()
    if not rest and "enum" in first:
        choices = model.constraints.choices(first["enum"])
        found.append(
            _run("choices", task, lambda: _plain(model, task, replace(_GREEDY, constraint=choices)))
        )
    return [
        *found,
        _run("JSON by grammar", task, lambda: _by_grammar(model, task), is_json=True),
        _run("JSON by value", task, lambda: _by_value(model, task), is_json=True),
    ]


def _plain(model: Model, task: Task, params: SamplingParams) -> list[Completion]:
    prompts = [_prompts(model, question)("") for question in task.questions]
    return model.generate_many(prompts, params, slots=_SLOTS)


def _by_grammar(model: Model, task: Task) -> list[Completion]:
    constraint = model.constraints.json_schema(task.schema, max_tokens=_GREEDY.max_new_tokens)
    return _plain(model, task, replace(_GREEDY, constraint=constraint))


def _by_value(model: Model, task: Task) -> list[Completion]:
    form = compile_schema(model, task.schema, max_tokens=_GREEDY.max_new_tokens)
    if form is None:
        return []
    requests = [(_prompts(model, question), question, _GREEDY) for question in task.questions]
    return fill_many(model, form, requests, slots=_SLOTS)


def _prompts(model: Model, question: str) -> MakePrompt:
    return lambda line: (
        model.prompts.chat(
            [], [], "\n".join(filter(None, (question, line))), max_new_tokens=100
        ).ids
    )


def _run(
    method: str, task: Task, ask: Callable[[], list[Completion]], *, is_json: bool = False
) -> Result:
    started = time.perf_counter()
    try:
        answers = ask()
    except (ParameterError, SamplingError) as error:
        print(f"{task.name}: {method}: {error}")
        return Result(method, 0, 0 if is_json else None, 0, 0, 0.0)
    seconds = time.perf_counter() - started
    values = [_value(answer.text) if is_json else answer.text for answer in answers]
    return Result(
        method,
        right=sum(map(_is_right, values, task.right)),
        valid=sum(isinstance(value, dict) for value in values) if is_json else None,
        truncated=sum(answer.finish_reason == "length" for answer in answers),
        tokens=sum(a.timings.prompt_tokens + a.timings.new_tokens for a in answers),
        seconds=seconds,
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_right(value: Any, right: dict[str, Any]) -> bool:
    if isinstance(value, str):
        return all(str(word) in value for word in right.values())
    if not isinstance(value, dict) or value.keys() != right.keys():
        return False
    return all(
        word in value[name] if isinstance(word, str) else value[name] == word
        for name, word in right.items()
    )


def main() -> None:
    """Print a table of all tasks and methods."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", help="a bundle; the demonstration model by default")
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    args = parser.parse_args()
    with Model.load(args.bundle, trust=args.trust) as model:
        _ = model.constraints  # reports a missing extra before the first question
        print("| task | method | right | valid JSON | truncated | tokens per answer | seconds |")
        print("|---|---|---|---|---|---|---|")
        for task in tasks():
            count = len(task.questions)
            for result in measure(model, task):
                valid = "-" if result.valid is None else f"{result.valid}/{count}"
                print(
                    f"| {task.name} | {result.method} | {result.right}/{count} | {valid} | "
                    f"{result.truncated} | {result.tokens / count:.1f} | {result.seconds:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
