"""What the features of the OpenAI package share: a client, questions, a schema and tools."""

from __future__ import annotations

from typing import Any, Literal

from feature import BASE_URL, CAPITAL, KEY, MODEL, QUESTION
from openai import OpenAI
from pydantic import BaseModel, Field

client = OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
USER: Any = [{"role": "user", "content": QUESTION}]
FRANCE: Any = [{"role": "user", "content": CAPITAL}]


class Capital(BaseModel):
    """The capital of a country."""

    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"] = Field(description="首都")


SCHEMA: Any = Capital.model_json_schema() | {"additionalProperties": False}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "capital", "schema": SCHEMA}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "capital", "description": "首都を答える。", "parameters": SCHEMA},
}
OTHER: Any = {
    "type": "function",
    "function": {
        "name": "population",
        "description": "人口を答える。",
        "parameters": {
            "type": "object",
            "properties": {"people": {"type": "integer", "minimum": 0, "maximum": 999}},
            "required": ["people"],
        },
    },
}
NAMED: Any = {"type": "function", "function": {"name": "capital"}}
RESPONSES_TOOL: Any = {"type": "function", "strict": False, **TOOL["function"]}


def ask(messages: Any = USER, **more: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=messages, temperature=0, **more)
