# /// script
# dependencies = ["lm_eval[api]>=0.4.9"]
# ///
"""EleutherAI's lm-eval, its command with `local-completions` and the server's own tokenizer."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests
from feature import BASE_URL, CAPITAL, MODEL, QUESTION, URL, feature, report

FOLDER = Path(tempfile.mkdtemp())
CITIES = ["ローマ", "パリ", "ベルリン", "ロンドン"]
COUNTRIES = ["イタリア", "フランス", "ドイツ", "イギリス"]
HEAD = (
    "<s>\\n以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。\\n"
    "[SEP]\\n指示:\\n"
)
TASK = """task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
test_split: test
output_type: {kind}
target_delimiter: ""
"""
CHOICES = """doc_to_text: "{{prompt}}"
doc_to_choice: choices
doc_to_target: right
metric_list: [{metric: acc}]
"""
UNTIL = """doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["。"], max_gen_toks: 40, do_sample: false}
metric_list: [{metric: exact_match}]
"""
ROLLING = """doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: byte_perplexity}]
"""


def write_task(name: str, kind: str, rest: str, docs: list[dict[str, Any]]) -> None:
    file = FOLDER / f"{name}.jsonl"
    lines = [json.dumps(doc, ensure_ascii=False) for doc in docs]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = TASK.format(task=name, file=file, cache=FOLDER / "cache", kind=kind) + rest
    (FOLDER / f"{name}.yaml").write_text(text, encoding="utf-8")


def evaluate(task: str, model: str, *words: str, **more: Any) -> Any:
    """The task's results and its samples; raises ChildProcessError with the end of what it says."""
    where = "/chat/completions" if "chat" in model else "/completions"
    arguments = {"model": MODEL, "base_url": BASE_URL + where, "num_concurrent": 1, **more}
    out = Path(tempfile.mkdtemp(dir=FOLDER))
    command = [Path(sys.executable).with_name("lm_eval"), "run", "--model", model]
    command += ["--tasks", task, "--include_path", str(FOLDER), "--output_path", str(out)]
    command += ["--log_samples", "--model_args"]
    command += [",".join(f"{name}={value}" for name, value in arguments.items()), *words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"OPENAI_API_KEY": "none"},
    )
    if done.returncode:
        raise ChildProcessError(done.stderr[-500:])
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    found = json.loads(results.read_text(encoding="utf-8"))["results"][task]
    return found, [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]


def post(path: str, body: Any) -> Any:
    answer = requests.post(URL + path, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def remote(task: str, **more: Any) -> Any:
    return evaluate(
        task,
        "local-completions",
        "--batch_size",
        "4",
        tokenizer_backend="remote",
        max_length=512,
        **more,
    )


@feature("logprobs", "multiple_choice, tokenizer_backend=remote")
def choices() -> str:
    found, _ = remote("places")
    assert found["acc,none"] >= 0.75, found
    return f"accuracy {found['acc,none']}"


@feature("completions", "generate_until, tokenizer_backend=remote")
def until() -> str:
    found, samples = remote("answers")
    assert all(sample["resps"][0][0] for sample in samples), samples
    return f"{samples[0]['resps'][0][0]!r}, exact {found['exact_match,none']}"


@feature("logprobs", "loglikelihood_rolling, tokenizer_backend=remote")
def rolling() -> str:
    found, (sample, *_) = remote("texts")
    text = sample["doc"]["text"]
    ids = post("/tokenize", {"prompt": text})["tokens"]
    body = {"model": MODEL, "prompt": [2, *ids], "max_tokens": 0, "echo": True, "logprobs": 1}
    logprobs = post("/v1/completions", body)["choices"][0]["logprobs"]["token_logprobs"][1:]
    own = math.exp(-sum(logprobs) / len(text.encode()))
    assert math.isclose(found["byte_perplexity,none"], own, rel_tol=1e-3), (found, own)
    return f"perplexity a byte {own:.3f}, with <s> in front"


@feature("tokens", "tokenizer_info")
def tokenizer_info() -> str:
    found = requests.get(URL + "/tokenizer_info", timeout=60).json()
    assert found["eos_token"] == "</s>", found
    return str({name: found[name] for name in ("bos_token", "eos_token")})


@feature("completions", "tokenizer_backend=none")
def no_tokenizer() -> str:
    _, samples = evaluate("answers", "local-completions", tokenizer_backend="none")
    assert samples[0]["resps"][0][0], samples
    return repr(samples[0]["resps"][0][0])


@feature("chat", "local-chat-completions")
def chat() -> str:
    _, samples = evaluate("questions", "local-chat-completions", "--apply_chat_template")
    text = samples[0]["resps"][0][0]
    assert "富士山" in text, text
    return text


if __name__ == "__main__":
    write_task(
        "places",
        "multiple_choice",
        CHOICES,
        [
            {
                "prompt": f"{HEAD}{country}の首都は?\\n[SEP]\\n応答:\\n",
                "choices": [f"{country}の首都は{city}です。" for city in CITIES],
                "right": place,
            }
            for place, country in enumerate(COUNTRIES)
        ],
    )
    write_task(
        "answers",
        "generate_until",
        UNTIL,
        [{"question": f"{HEAD}{CAPITAL}\\n[SEP]\\n応答:\\n", "answer": "フランスの首都はパリです"}],
    )
    write_task("questions", "generate_until", UNTIL, [{"question": QUESTION, "answer": "富士山"}])
    write_task(
        "texts", "loglikelihood_rolling", ROLLING, [{"text": "日本で一番高い山は富士山です。"}]
    )
    report("lm_eval")
