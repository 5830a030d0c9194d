# /// script
# dependencies = ["instructor>=1.10", "openai>=2"]
# ///
"""instructor, as https://python.useinstructor.com shows it, in each of its modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import instructor
from feature import BASE_URL, CAPITAL, KEY, MODEL, feature, report
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

openai = OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
MESSAGES: Any = [{"role": "user", "content": CAPITAL}]
MODES = {
    instructor.Mode.TOOLS: "tool named",
    instructor.Mode.JSON: "JSON object",
    instructor.Mode.JSON_SCHEMA: "JSON schema",
    instructor.Mode.MD_JSON: "JSON object",
}
ANY = "the schema is in the prompt alone: any JSON fits, and the model writes {}"
CONTEXT = "the schema in the prompt makes it longer than the model's context of 512 tokens"
LIMITS = {
    (instructor.Mode.MD_JSON, "Capital"): "no constraint is sent, and the model writes no JSON",
    (instructor.Mode.MD_JSON, "Place"): CONTEXT,
    (instructor.Mode.JSON, "Capital"): ANY,
    (instructor.Mode.JSON, "Place"): CONTEXT,
}


class Capital(BaseModel):
    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


class Place(BaseModel):
    """A place with a number and a list."""

    name: str = Field(max_length=8)
    people: int
    rivers: list[str] = Field(max_length=2)
    capital: Capital


def asking(mode: instructor.Mode, kind: Any) -> Callable[[], str]:
    def ask() -> str:
        client = instructor.from_openai(openai, mode=mode)
        found = client.create(
            model=MODEL, response_model=kind, messages=MESSAGES, temperature=0, max_retries=0
        )
        assert isinstance(found, kind), found
        return str(found)

    return ask


for mode, column in MODES.items():
    for kind, name in ((Capital, ""), (Place, ", nested")):
        limit = LIMITS.get((mode, kind.__name__))
        feature(column, f"Mode.{mode.name}{name}", limit=limit)(asking(mode, kind))


def client_of(mode: instructor.Mode = instructor.Mode.TOOLS) -> Any:
    return instructor.from_openai(openai, mode=mode)


@feature("tool named", "from_provider")
def from_provider() -> str:
    client = instructor.from_provider(f"openai/{MODEL}", base_url=BASE_URL, api_key=KEY)
    found = client.create(response_model=Capital, messages=MESSAGES, max_retries=0)
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool named", "Mode.TOOLS_STRICT")
def tools_strict() -> str:
    return asking(instructor.Mode.TOOLS_STRICT, Capital)()


@feature("tool named", "simple types")
def simple_types() -> str:
    for kind in (bool, int, Literal["山", "川"]):
        found = client_of().create(
            model=MODEL, response_model=kind, messages=MESSAGES, max_retries=0
        )
        assert found in ("山", "川") or isinstance(found, (bool, int)), found
    return str(found)


@feature("tool streamed", "create_partial")
def partial() -> str:
    *_, found = client_of().create_partial(
        model=MODEL, response_model=Capital, messages=MESSAGES, temperature=0, max_retries=0
    )
    Capital.model_validate(found.model_dump())
    return str(found)


@feature("JSON schema", "create_partial")
def partial_schema() -> str:
    *_, found = client_of(instructor.Mode.JSON_SCHEMA).create_partial(
        model=MODEL, response_model=Capital, messages=MESSAGES, temperature=0, max_retries=0
    )
    Capital.model_validate(found.model_dump())
    return str(found)


@feature("tool streamed", "create_iterable")
def iterable() -> str:
    found = list(
        client_of().create_iterable(
            model=MODEL, response_model=Capital, messages=MESSAGES, temperature=0, max_retries=0
        )
    )
    assert all(isinstance(one, Capital) for one in found), found
    return str(found[:3])


@feature("tool named", "create_with_completion")
def with_completion() -> str:
    found, completion = client_of().create_with_completion(
        model=MODEL, response_model=Capital, messages=MESSAGES, max_retries=0
    )
    assert isinstance(found, Capital) and completion.usage.completion_tokens > 0, completion
    return str(found)


@feature("tool result", "a retry with the validator's message")
def retry() -> str:
    seen: list[str] = []

    class Twice(Capital):
        """The capital of a country, which is wrong at first."""

        def model_post_init(self, context: Any) -> None:
            seen.append(self.capital)
            if len(seen) == 1:
                raise ValueError("もう一度。")

    found = client_of().create(model=MODEL, response_model=Twice, messages=MESSAGES, max_retries=2)
    assert isinstance(found, Twice) and len(seen) > 1, seen
    return str(found)


@feature("async")
async def asynchronous() -> str:
    own = AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
    client = instructor.from_openai(own, mode=instructor.Mode.JSON_SCHEMA)
    found = await client.create(
        model=MODEL, response_model=Capital, messages=MESSAGES, max_retries=0
    )
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool auto", "Mode.PARALLEL_TOOLS", limit="the model does not decide what to call")
def parallel() -> str:
    from collections.abc import Iterable

    found = client_of(instructor.Mode.PARALLEL_TOOLS).create(
        model=MODEL, response_model=Iterable[Capital | Place], messages=MESSAGES, max_retries=0
    )
    texts = [str(one) for one in found]
    assert texts, texts
    return str(texts)


@feature("responses", "Mode.RESPONSES_TOOLS")
def responses() -> str:
    return asking(instructor.Mode.RESPONSES_TOOLS, Capital)()


if __name__ == "__main__":
    report("instructor")
