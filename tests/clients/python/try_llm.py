# /// script
# dependencies = ["llm>=0.27"]
# ///
"""Simon Willison's llm, the command and the package, as https://llm.datasette.io shows them."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from feature import ANSWER, BASE_URL, CAPITAL, MODEL, QUESTION, ROLE, feature, raises, report

FOLDER = Path(os.environ.setdefault("LLM_USER_PATH", tempfile.mkdtemp()))
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MORE = f"""
- model_id: able
  model_name: {MODEL}
  api_base: {BASE_URL}
  supports_schema: true
  supports_tools: true
  vision: true
- model_id: issun-completion
  model_name: {MODEL}
  api_base: {BASE_URL}
  completion: true
- model_id: wrong
  model_name: gpt-4o
  api_base: {BASE_URL}
"""


def llm(*words: str, text: str | None = None) -> str:
    """What the command prints; raises ChildProcessError with what it says of a failure."""
    done = subprocess.run(
        [Path(sys.executable).with_name("llm"), *words],
        input=text or "",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildProcessError(done.stderr)
    return done.stdout


def documented(start: str) -> str:
    """The first block of issun's pages that begins with `start`, with this server's address."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(rf"^```\w+\n({re.escape(start)}.*?)^```$", text, re.M | re.S)[0]
    return found.replace("http://127.0.0.1:8000/v1", BASE_URL)


@feature("chat", "as issun's documentation says")
def as_documented() -> str:
    _, *words = shlex.split(documented("llm "))
    text = llm(*words)
    assert ANSWER in text, text
    return text


@feature("chat")
def chat() -> str:
    text = llm("-m", "issun", "--no-stream", QUESTION)
    assert ANSWER in text, text
    return text


@feature("chat", "a pipe")
def piped() -> str:
    text = llm("-m", "issun", text=QUESTION)
    assert ANSWER in text, text
    return text


@feature("stream")
def stream() -> str:
    text = llm("-m", "issun", QUESTION)
    assert ANSWER in text, text
    return text


@feature("async")
async def asynchronous() -> str:
    import llm as package

    text = await package.get_async_model("issun").prompt(QUESTION, temperature=0).text()
    assert ANSWER in text, text
    return text


@feature("system")
def system() -> str:
    text = llm("-m", "issun", "-s", ROLE, QUESTION)
    assert "なのだ" in text, text
    return text


@feature("history", "llm -c")
def history() -> str:
    llm("-m", "issun", QUESTION)
    text = llm("-c", "最初の質問は何ですか?")
    assert QUESTION in text, text
    return text


@feature("history", "llm chat")
def chatting() -> str:
    text = llm("chat", "-m", "issun", text=f"{QUESTION}\n最初の質問は何ですか?\nexit\n")
    assert QUESTION in text, text
    return text


@feature("sampling")
def sampling() -> str:
    options = {"temperature": "0", "max_tokens": "30", "seed": "1", "stop": "富士"}
    text = llm("-m", "issun", *[w for o in options.items() for w in ("-o", *o)], QUESTION)
    assert text.strip() == "日本で一番高い山は", text
    return text


@feature("usage")
def usage() -> str:
    llm("-m", "issun", QUESTION)
    (last,) = json.loads(llm("logs", "--json", "-n", "1"))
    assert last["output_tokens"] > 0, last
    return f"{last['input_tokens']} {last['output_tokens']}"


@feature("JSON object")
def json_object() -> str:
    text = llm("-m", "issun", "-o", "json_object", "1", CAPITAL)
    assert isinstance(json.loads(text), dict), text
    return text


@feature("JSON schema", "--schema 'name, age int'")
def schema() -> str:
    found = json.loads(llm("-m", "able", "--schema", "name, age int", "太郎は20歳です。"))
    assert isinstance(found["name"], str) and isinstance(found["age"], int), found
    return str(found)


@feature("JSON schema", "--schema-multi")
def schema_multi() -> str:
    found = json.loads(llm("-m", "able", "--schema-multi", "name, age int", "太郎と花子"))
    assert all(isinstance(one["name"], str) for one in found["items"]), found
    return str(found)


@feature("JSON schema", "package")
def schema_package() -> str:
    import llm as package
    from pydantic import BaseModel

    class Dog(BaseModel):
        is_big: bool
        age: int

    text = package.get_model("able").prompt("大きな犬", schema=Dog).text()
    return str(Dog.model_validate_json(text))


@feature("tool auto", "--tool, answered in text")
def tool_text() -> str:
    text = llm("-m", "able", "--tool", "llm_version", QUESTION)
    assert ANSWER in text, text
    return text


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
def tool_auto() -> str:
    import llm as package

    calls: list[str] = []

    def highest_mountain(country: str) -> str:
        """国で一番高い山を調べる。"""
        calls.append(country)
        return ANSWER

    text = package.get_model("able").chain(QUESTION, tools=[highest_mountain]).text()
    assert calls, text
    return text


@feature("completions")
def completions() -> str:
    text = llm("-m", "issun-completion", "-o", "max_tokens", "8", "日本で一番高い山は")
    assert text.strip(), text
    return text


@feature("clear errors", "another model")
def wrong_model() -> str:
    return raises(lambda: llm("-m", "wrong", QUESTION), "gpt-4o", MODEL)


@feature("clear errors", "an image")
def image() -> str:
    picture = FOLDER / "pixel.png"
    picture.write_bytes(PIXEL)
    return raises(lambda: llm("-m", "able", "-a", str(picture), QUESTION), "image")


if __name__ == "__main__":
    (FOLDER / "extra-openai-models.yaml").write_text(
        documented("- model_id: issun") + MORE, encoding="utf-8"
    )
    report("llm")
