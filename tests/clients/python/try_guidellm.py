# /// script
# dependencies = ["guidellm>=0.5", "jinja2", "torch==2.13.0"]
# ///
"""GuideLLM, the command `guidellm run`, as its documentation shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from byte_tokenizer import save_tokenizer
from feature import CAPITAL, MODEL, QUESTION, URL, feature, report

FOLDER = Path(tempfile.mkdtemp())
TOKENIZER = save_tokenizer(FOLDER / "tokenizer")
REQUESTS = 4
PROMPTS = FOLDER / "prompts.jsonl"
FILE = f"kind=json_file,path={PROMPTS}"
SYNTHETIC = "kind=synthetic_text,prompt_tokens=40,output_tokens=20"


def run(*, data: str = FILE, profile: str = "kind=concurrent,streams=2", **more: Any) -> str:
    """Output tokens a request; raises ChildProcessError where a request fails."""
    backend = {"kind": "openai_http", "target": URL, "model": MODEL, **more}
    found = Path(tempfile.mkdtemp(dir=FOLDER)) / "report.json"
    command = [Path(sys.executable).with_name("guidellm"), "run", "--disable-console"]
    command += ["--backend", json.dumps(backend), "--profile", profile, "--data", data]
    command += ["--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}"]
    command += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
    command += ["--constraint", "kind=max_duration,seconds=20"]
    command += ["--output", f"kind=json,path={found}"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"GUIDELLM__MP_CONTEXT_TYPE": "spawn"},
    )
    if done.returncode:
        raise ChildProcessError((done.stdout + done.stderr)[-500:])
    (benchmark,) = json.loads(found.read_text(encoding="utf-8"))["benchmarks"]
    requests = benchmark["requests"]
    errors = [one.get("error") or one["info"].get("error") for one in requests["errored"]]
    assert not errors, errors[0]
    assert len(requests["successful"]) == REQUESTS, benchmark["metrics"]["request_totals"]
    return f"{requests['successful'][0]['output_metrics']['text_tokens']} tokens"


@feature("stream", "/v1/chat/completions")
def stream() -> str:
    return run()


@feature("chat", "without a stream")
def chat() -> str:
    return run(stream=False)


@feature("sampling", "lengths of a synthetic load")
def lengths() -> str:
    found = run(data=SYNTHETIC)
    assert found == "20 tokens", found
    return found


@feature("completions", "/v1/completions")
def completions() -> str:
    return run(request_format="/v1/completions", data=SYNTHETIC)


@feature("responses", "/v1/responses")
def responses() -> str:
    return run(request_format="/v1/responses")


@feature("models", "the server's first model")
def models() -> str:
    return run(model="")


if __name__ == "__main__":
    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in (QUESTION, CAPITAL)]
    PROMPTS.write_text("\n".join(lines * REQUESTS) + "\n", encoding="utf-8")
    report("guidellm")
