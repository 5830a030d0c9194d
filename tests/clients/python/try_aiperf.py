# /// script
# dependencies = ["aiperf>=0.3"]
# ///
"""NVIDIA's AIPerf, the command `aiperf profile`, as its documentation shows it."""

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
REQUESTS = 4


def write_prompts() -> str:
    prompts = FOLDER / "prompts.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in (QUESTION, CAPITAL)]
    prompts.write_text("\n".join(lines), encoding="utf-8")
    return str(prompts)


TOKENIZER, PROMPTS = save_tokenizer(FOLDER / "tokenizer"), write_prompts()
# Where the hub is offline, AIPerf takes the folder for the name of a repository.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}


def profile(*words: str) -> Any:
    """The figures of a run; raises ChildProcessError where a request fails."""
    out = Path(tempfile.mkdtemp(dir=FOLDER))
    command = [Path(sys.executable).with_name("aiperf"), "profile", "--model", MODEL, "--url", URL]
    command += ["--tokenizer", TOKENIZER, "--request-count", str(REQUESTS), "--ui", "none"]
    command += ["--concurrency", "2", "--artifact-dir", str(out), *words]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=90
    )
    if done.returncode:
        raise ChildProcessError((done.stdout + done.stderr)[-500:])
    found = json.loads(next(out.rglob("profile_export_aiperf.json")).read_text(encoding="utf-8"))
    errors = found.get("error_summary")
    if errors:
        raise ChildProcessError(str(errors))
    assert found["request_count"]["avg"] == REQUESTS, found["request_count"]
    return found


def shown(found: Any, *names: str) -> str:
    return ", ".join(f"{name} {found[name]['avg']:.1f}" for name in names)


FILE = ("--input-file", PROMPTS, "--custom-dataset-type", "single_turn")


@feature("chat", "--endpoint-type chat")
def chat() -> str:
    return shown(profile("--endpoint-type", "chat", *FILE), "output_sequence_length")


@feature("stream", "--streaming")
def stream() -> str:
    found = profile("--endpoint-type", "chat", "--streaming", *FILE)
    assert found["time_to_first_token"]["avg"] > 0, found
    return shown(found, "output_sequence_length")


@feature("usage", "--use-server-token-count")
def usage() -> str:
    found = profile("--endpoint-type", "chat", "--streaming", "--use-server-token-count", *FILE)
    return shown(found, "output_sequence_length", "input_sequence_length")


@feature("usage", "--per-chunk-usage")
def chunk_usage() -> str:
    counts = ("--use-server-token-count", "--per-chunk-usage")
    found = profile("--endpoint-type", "chat", "--streaming", *counts, *FILE)
    return shown(found, "output_sequence_length")


@feature("sampling", "ignore_eos and lengths of a synthetic load")
def lengths() -> str:
    found = profile(
        *("--endpoint-type", "chat", "--streaming", "--use-server-token-count"),
        *("--synthetic-input-tokens-mean", "40", "--output-tokens-mean", "30"),
        *("--extra-inputs", "ignore_eos:true", "--extra-inputs", "min_tokens:30"),
    )
    assert found["output_sequence_length"]["avg"] == 30, found["output_sequence_length"]
    return shown(found, "output_sequence_length")


@feature("history", "--conversation-turn-mean 2")
def turns() -> str:
    found = profile(
        *("--endpoint-type", "chat", "--streaming", "--use-server-token-count"),
        *("--conversation-num", "2", "--conversation-turn-mean", "2"),
        *("--synthetic-input-tokens-mean", "20", "--output-tokens-mean", "10"),
    )
    return shown(found, "output_sequence_length", "input_sequence_length")


@feature("completions", "--endpoint-type completions")
def completions() -> str:
    found = profile("--endpoint-type", "completions", "--streaming", *FILE)
    return shown(found, "output_sequence_length")


@feature("responses", "--endpoint-type responses")
def responses() -> str:
    found = profile("--endpoint-type", "responses", "--streaming", *FILE)
    return shown(found, "output_sequence_length")


@feature("models", "--wait-for-model-mode both")
def waiting() -> str:
    wait = ("--wait-for-model-timeout", "30", "--wait-for-model-mode", "both")
    return shown(profile("--endpoint-type", "chat", *wait, *FILE), "output_sequence_length")


if __name__ == "__main__":
    report("aiperf")
