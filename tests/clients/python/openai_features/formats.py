"""JSON and other constrained answers."""

from __future__ import annotations

import datetime
import json
from typing import Any, Literal

from feature import (
    MODEL,
    PARIS,
    feature,
    raises,
)
from openai_features.common import (
    FORMAT,
    FRANCE,
    Capital,
    ask,
    client,
)
from pydantic import BaseModel, Field


class Stop(BaseModel):
    days: int = Field(ge=1, le=30)
    price: float | None = None


class Journey(BaseModel):
    """A journey."""

    name: str
    tags: list[str]
    season: Literal["春", "夏", "秋", "冬"]
    begins: datetime.date
    first: Stop
    stops: list[Stop] = Field(max_length=3)
    seats: dict[str, int] = {}
    number: int | str
    paid: bool | None


class Node(BaseModel):
    value: int
    next: Node | None = None


@feature("choices", "extra_body")
def choices() -> str:
    text = ask(FRANCE, extra_body={"choices": ["ローマ", PARIS]}).choices[0].message.content
    assert text == PARIS, text
    return text


@feature("regex", "extra_body")
def regex() -> str:
    text = ask(extra_body={"regex": "[0-9]{2}"}).choices[0].message.content
    assert len(text) == 2 and text.isdecimal(), text
    return text


@feature("JSON object")
def json_object() -> str:
    text = ask(FRANCE, response_format={"type": "json_object"}).choices[0].message.content
    assert isinstance(json.loads(text), dict), text
    return text


@feature("JSON schema")
def json_schema() -> str:
    text = ask(FRANCE, response_format=FORMAT).choices[0].message.content
    Capital.model_validate_json(text)
    return text


@feature("JSON schema", "parse")
def parse() -> str:
    done = client.chat.completions.parse(
        model=MODEL, messages=FRANCE, response_format=Capital, temperature=0
    )
    found = done.choices[0].message.parsed
    assert isinstance(found, Capital), done
    return str(found)


@feature("JSON schema", "stream")
def parse_stream() -> str:
    with client.chat.completions.stream(
        model=MODEL, messages=FRANCE, response_format=Capital, temperature=0
    ) as events:
        found = events.get_final_completion().choices[0].message.parsed
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON schema", "lists, dates, options, references, maps")
def json_schema_of_much() -> str:
    schema = Journey.model_json_schema()
    asked: Any = {"type": "json_schema", "json_schema": {"name": "journey", "schema": schema}}
    text = ask(FRANCE, response_format=asked).choices[0].message.content
    return str(Journey.model_validate_json(text))


@feature("JSON schema", "a recursive type")
def json_schema_recursive() -> str:
    done = client.chat.completions.parse(model=MODEL, messages=FRANCE, response_format=Node)
    assert isinstance(done.choices[0].message.parsed, Node), done
    return str(done.choices[0].message.parsed)


@feature("clear errors", "max_tokens below the schema's shortest answer")
def json_schema_without_room() -> str:
    return raises(lambda: ask(FRANCE, response_format=FORMAT, max_tokens=1), "tokens")


@feature("logprobs", "of JSON by a schema")
def logprobs_of_json() -> str:
    choice = ask(FRANCE, response_format=FORMAT, logprobs=True).choices[0]
    # Of the tokens that the model wrote: the server writes what stands around the value.
    spelt = bytes(b for token in choice.logprobs.content for b in token.bytes).decode()
    assert PARIS in spelt, (spelt, choice.message.content)
    return spelt


@feature("JSON schema", "right answer")
def parse_right() -> str:
    found = Capital.model_validate_json(
        ask(FRANCE, response_format=FORMAT).choices[0].message.content
    )
    assert found.capital == PARIS, found
    return str(found)
