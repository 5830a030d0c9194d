# /// script
# dependencies = ["guidance>=0.3", "openai>=2"]
# ///
"""Guidance on OpenAI-compatible and on vLLM-like servers, as its README shows."""

from __future__ import annotations

from typing import Any, Literal

import guidance
from feature import ANSWER, BASE_URL, CAPITAL, KEY, MODEL, PARIS, QUESTION, ROLE, feature, report
from guidance import assistant, gen, models, select, system, user
from guidance import json as gen_json
from guidance.models.experimental import VLLMModel
from pydantic import BaseModel


class Capital(BaseModel):
    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


def openai_model() -> Any:
    return models.OpenAI(MODEL, base_url=BASE_URL, api_key=KEY, echo=False)


def vllm_model() -> Any:
    return VLLMModel(MODEL, base_url=BASE_URL, api_key=KEY, echo=False)


def asked(model: Any, question: str) -> Any:
    with user():
        model += question
    return model


@feature("chat", "gen")
@feature("stream", "gen")
@feature("logprobs", "gen asks for them")
def chat() -> str:
    model = asked(openai_model(), QUESTION)
    with assistant():
        model += gen("answer", max_tokens=40, temperature=0)
    assert ANSWER in model["answer"], model["answer"]
    return model["answer"]


@feature("system")
def role() -> str:
    model = openai_model()
    with system():
        model += ROLE
    model = asked(model, QUESTION)
    with assistant():
        model += gen("answer", max_tokens=40, temperature=0)
    assert "なのだ" in model["answer"], model["answer"]
    return model["answer"]


@feature("history")
def history() -> str:
    model = asked(openai_model(), QUESTION)
    with assistant():
        model += gen("first", max_tokens=40, temperature=0)
    model = asked(model, "最初の質問は何ですか?")
    with assistant():
        model += gen("answer", max_tokens=40, temperature=0)
    assert QUESTION in model["answer"], model["answer"]
    return model["answer"]


@feature("JSON schema", "json")
def json_schema() -> str:
    model = asked(openai_model(), CAPITAL)
    with assistant():
        model += gen_json("answer", schema=Capital, temperature=0)
    return str(Capital.model_validate_json(model["answer"]))


GRAMMAR = "guidance sends its own grammar (`guided_grammar`), which issun does not read"


@feature("choices", "select", limit=GRAMMAR)
def choices() -> str:
    model = asked(vllm_model(), CAPITAL)
    with assistant():
        model += select(["ローマ", "パリ"], name="answer")
    assert model["answer"] == PARIS, model["answer"]
    return model["answer"]


@feature("regex", "gen(regex=)", limit=GRAMMAR)
def regex() -> str:
    model = asked(vllm_model(), "日本の人口は?")
    with assistant():
        model += gen("answer", regex="[0-9]{3}", temperature=0)
    assert len(model["answer"]) == 3, model["answer"]
    return model["answer"]


@feature("tool auto", "gen(tools=)", limit="the model does not decide whether to call")
def tool_auto() -> str:
    calls = []

    def highest_mountain(country: str) -> str:
        """国で一番高い山を調べる。"""
        calls.append(country)
        return ANSWER

    model = asked(openai_model(), QUESTION)
    with assistant():
        model += gen(tools=[highest_mountain])
    assert calls, str(model)
    return str(calls)


if __name__ == "__main__":
    report(guidance.__name__)
