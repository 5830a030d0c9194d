"""A small random checkpoint of every family, with its usual tokenizer and prompt format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.benchmarks.small_tokenizers import vocabulary_text
from issun.export import ExportOptions, export
from tests.json_tokenizers import write

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCTION = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only users and assistants') }}{% endif %}{% endfor %}"
)
HEADINGS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}\n\n### 指示:\n"
    "{{ m.content }}{% elif m.role == 'system' %}{{ m.content }}{% else %}\n\n### 応答:\n"
    "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}\n\n### 応答:\n{% endif %}"
)


@dataclass(frozen=True)
class Kind:
    """A family's smallest shape, a kind of tokenizer.json, and a chat template."""

    family: str
    tokenizer: str
    ends: tuple[str, ...]
    template: str | None = None
    begin: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write a checkpoint with random weights."""
        shape = SHAPES[self.family]["tiny"] | {"vocab_size": 3400} | dict(self.config)
        make_checkpoint(folder, shape)
        for name in ("spiece.model", "tokenizer.model"):
            (folder / name).unlink(missing_ok=True)
        path = write(self.tokenizer, vocabulary_text().splitlines(), folder)
        added = json.loads(path.read_text(encoding="utf-8"))["added_tokens"]
        ids = {token["content"]: token["id"] for token in added}
        described = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.begin,
            "eos_token": self.ends[0],
            "chat_template": self.template,
        }
        (folder / "tokenizer_config.json").write_text(
            json.dumps({k: v for k, v in described.items() if v is not None}), encoding="utf-8"
        )
        (folder / "generation_config.json").write_text(
            json.dumps({"eos_token_id": [ids[end] for end in self.ends]}), encoding="utf-8"
        )
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config |= {"eos_token_id": ids[self.ends[0]]}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder


WINDOWS = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
KINDS = {
    "gpt2": Kind("gpt2", "gpt2", ("<|endoftext|>",)),
    "gpt-neox": Kind("gpt-neox", "neox", ("<|endoftext|>",)),
    "llama": Kind("llama", "llm_jp", ("</s>",), HEADINGS, "<s>"),
    "mistral": Kind("mistral", "llama_bpe", ("</s>",), INSTRUCTION, "<s>"),
    "qwen2": Kind("qwen2", "qwen", ("<|im_end|>", "<|endoftext|>"), CHATML, None, WINDOWS),
    "qwen3": Kind("qwen3", "qwen", ("<|im_end|>", "<|endoftext|>"), CHATML),
}

Made = Callable[..., Path]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`source(name)`: the checkpoint of that name in KINDS."""
    folder = tmp_path_factory.mktemp("families")

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else KINDS[name].write(path)

    return make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, source: Callable[[str], Path]) -> Made:
    """`made(name, precision="int8", kv_cache="int8")`: a bundle of that checkpoint."""
    folder = tmp_path_factory.mktemp("family-bundles")

    def make(name: str, precision: Any = "int8", kv_cache: Any = "int8") -> Path:
        target = folder / f"{name}-{precision}-{kv_cache}"
        if not target.exists():
            unfitted = False if precision == "int4" else None  # GPTQ takes most of the time
            options = ExportOptions(precision=precision, kv_cache=kv_cache, gptq=unfitted)
            export(source(name), target, options)
        return target

    return make
