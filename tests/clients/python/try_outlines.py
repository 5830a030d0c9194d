# /// script
# dependencies = ["outlines[openai]>=1.2"]
# ///
"""Outlines on OpenAI-compatible and on vLLM-like servers, as https://dottxt-ai.github.io shows."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import outlines
from feature import ANSWER, BASE_URL, CAPITAL, KEY, MODEL, PARIS, QUESTION, ROLE, feature, report
from outlines.inputs import Chat
from outlines.types import Choice, Regex
from pydantic import BaseModel

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
model: Any = outlines.from_openai(client, MODEL)
vllm: Any = outlines.from_vllm(client, MODEL)
sglang: Any = outlines.from_sglang(client, MODEL)
COLD: Any = {"temperature": 0}


class Capital(BaseModel):
    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


@feature("chat", "from_openai")
def chat() -> str:
    text = model(QUESTION, **COLD)
    assert ANSWER in text, text
    return text


@feature("chat", "from_vllm")
def chat_vllm() -> str:
    text = vllm(QUESTION, **COLD)
    assert ANSWER in text, text
    return text


@feature("stream")
def stream() -> str:
    texts = list(model.stream(QUESTION, **COLD))
    assert ANSWER in "".join(texts) and len(texts) > 2, texts
    return "".join(texts)


@feature("async")
async def asynchronous() -> str:
    async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY) as own:
        text = await outlines.from_openai(own, MODEL)(QUESTION, **COLD)
    assert ANSWER in text, text
    return text


@feature("system", "Chat")
def system() -> str:
    asked = [{"role": "system", "content": ROLE}, {"role": "user", "content": QUESTION}]
    text = model(Chat(asked), **COLD)
    assert "なのだ" in text, text
    return text


@feature("sampling")
def sampling() -> str:
    text = model(QUESTION, stop=["富士"], seed=1, max_tokens=30, **COLD)
    assert text == "日本で一番高い山は", text
    return text


@feature("JSON object", "from_openai, dict")
def json_object() -> str:
    text = model(CAPITAL, dict, **COLD)
    assert isinstance(json.loads(text), dict), text
    return text


@feature("JSON schema", "from_openai")
def json_schema() -> str:
    return str(Capital.model_validate_json(model(CAPITAL, Capital, **COLD)))


@feature("JSON schema", "from_vllm")
def json_schema_vllm() -> str:
    return str(Capital.model_validate_json(vllm(CAPITAL, Capital, **COLD)))


@feature("JSON schema", "from_sglang")
def json_schema_sglang() -> str:
    return str(Capital.model_validate_json(sglang(CAPITAL, Capital, **COLD)))


@feature("choices", "from_vllm, Literal")
def choices() -> str:
    text = vllm(CAPITAL, Literal["ローマ", "パリ"], **COLD)
    assert text == PARIS, text
    return text


@feature("choices", "from_sglang, Choice")
def choices_sglang() -> str:
    text = sglang(CAPITAL, Choice(["ローマ", "パリ"]), **COLD)
    assert text == PARIS, text
    return text


@feature("regex", "from_vllm, int")
def integer() -> str:
    text = vllm("日本の人口は?", int, max_tokens=20, **COLD)
    return str(int(text))


@feature("regex", "from_vllm")
def regex() -> str:
    text = vllm(CAPITAL, Regex("(パリ|ローマ)(です|。)"), **COLD)
    assert text in ("パリです", "ローマです", "パリ。", "ローマ。"), text
    return text


@feature("regex", "from_vllm, stream")
def regex_stream() -> str:
    text = "".join(vllm.stream(CAPITAL, Regex("[0-9]{3}"), **COLD))
    assert len(text) == 3 and text.isdecimal(), text
    return text


if __name__ == "__main__":
    report("outlines")
