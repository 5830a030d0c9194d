"""The prompt format of an export: the user's, the checkpoint's own, or that of a known model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export import CheckpointError, ExportOptions, export
from issun.export.prompt_format import _by_name
from issun.export.template import ALPACA, SHIPPED, load_template, template_file
from issun.runtime import Conversation, Model, SamplingParams, Turn
from issun.runtime.manifest import JinjaTemplate, Manifest, Template
from issun.runtime.text.prompt import PromptBuilder
from tests.chat_shapes import CHATML, GEMMA
from tests.letters import Letters

LETTERS: Any = Letters()


@pytest.fixture
def source(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may change."""
    return shutil.copytree(checkpoint("head-8"), tmp_path / "source")


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def exported(source: Path, notices: list[str]) -> Callable[..., Manifest]:
    def make(folder: Path = source, **options: Any) -> Manifest:
        return export(
            folder,
            source.parent / "bundle",
            ExportOptions(precision="float32", force=True, **options),
            notify=lambda template, **values: notices.append(template.format(**values)),
        )

    return make


def change(path: Path, **changes: Any) -> None:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(found | changes, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "origin", "expected"),
    [
        ("line-corporation/japanese-large-lm-1.7b-instruction-sft", None, "line"),
        ("japanese-large-lm-3.6b-instruction-sft", "", "line"),
        ("line-corporation/japanese-large-lm-1.7b", None, "plain"),
        ("rinna/japanese-gpt-neox-3.6b-instruction-sft-v2", None, "rinna"),
        ("rinna/japanese-gpt-neox-3.6b-instruction-ppo", None, "rinna"),
        ("rinna/japanese-gpt-neox-3.6b", None, "plain"),
        ("rinna/japanese-gpt2-medium", None, "plain"),
        ("japanese-gpt-1b", None, "plain"),
        ("mine", "rinna/japanese-gpt-neox-3.6b-instruction-sft", "rinna"),
        ("inu-ai/alpaca-guanaco-japanese-gpt-1b", "rinna/japanese-gpt-1b", "alpaca-japanese"),
        ("mine", "rinna/japanese-gpt-1b", None),
        ("mine", 5, None),
    ],
)
def test_published_models_are_recognized_by_name(
    name: str, origin: object, expected: str | None
) -> None:
    found = _by_name(name, {"_name_or_path": origin})
    assert (found and found[0]) == expected


def test_the_format_is_reported_with_the_reason(
    source: Path, exported: Callable[..., Manifest], notices: list[str]
) -> None:
    assert exported().prompt == ALPACA
    change(source / "config.json", _name_or_path="line-corporation/japanese-large-lm-1.7b"
           "-instruction-sft")  # fmt: skip
    assert exported().prompt.name == "line"
    change(source / "config.json", _name_or_path="")
    change(source / "tokenizer_config.json", sep_token=None)
    assert exported().prompt.name == "plain"
    assert exported(template="rinna").prompt.name == "rinna"
    change(source / "tokenizer_config.json", chat_template=CHATML)
    manifest = exported()
    assert isinstance(manifest.prompt, JinjaTemplate)
    assert manifest.prompt.source == CHATML
    assert notices == [
        "prompt format: alpaca-japanese (recognized by the tokens <s> [SEP])",
        "prompt format: line (recognized by the name line-corporation/japanese-large-lm-1.7b"
        "-instruction-sft)",
        "prompt format: plain (none was found: the model continues texts)",
        "prompt format: rinna",
        f"prompt format: chat_template (from {source / 'tokenizer_config.json'})",
    ]


def test_where_a_chat_template_may_be(source: Path, exported: Callable[..., Manifest]) -> None:
    def source_of(manifest: Manifest) -> str:
        assert isinstance(manifest.prompt, JinjaTemplate)
        return manifest.prompt.source

    change(source / "chat_template.json", chat_template="3{{ messages[0].content }}")
    assert source_of(exported()).startswith("3")
    several = [
        {"name": "tool_use", "template": "x{{ messages[0].content }}"},
        {"name": "default", "template": "2{{ messages[0].content }}"},
    ]
    change(source / "tokenizer_config.json", chat_template=several)
    assert source_of(exported()).startswith("2")
    (source / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf1{{ messages[0].content }}")
    assert source_of(exported()).startswith("1")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("{% for", "failed: unexpected 'end of template' (line 1). Choose a template"),
        ("{{ raise_exception('no.') }}", "template chat_template failed: no. Choose a template"),
        ([{"name": "tool_use", "template": "x"}], "with one named default"),
        (5, "is not a text"),
        (
            "{{ bos_token }}hello",
            "template chat_template leaves out the message. Choose a template",
        ),
        ("{{ messages[0].content }}" + "x" * 200_000, "has 200,025 characters, above 200,000"),
    ],
)
def test_a_chat_template_that_cannot_be_used(
    source: Path, exported: Callable[..., Manifest], value: Any, fault: str
) -> None:
    change(source / "tokenizer_config.json", chat_template=value)
    with pytest.raises(CheckpointError) as caught:
        exported()
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
    assert exported(template="plain").prompt.name == "plain"


def test_tokens_of_gpt_2_s_format_do_not_name_that_of_another_family(
    tmp_path: Path, exported: Callable[..., Manifest]
) -> None:
    folder = tmp_path / "neox"
    make_checkpoint(folder, SHAPES["gpt-neox"]["tiny"])
    change(folder / "tokenizer_config.json", bos_token="<s>", sep_token="[SEP]")  # noqa: S106
    found = exported(folder)
    assert {"<s>", "[SEP]"} <= found.tokens.special.keys()
    assert found.prompt.name == "plain"


def test_a_template_that_is_neither_shipped_nor_a_file(exported: Callable[..., Manifest]) -> None:
    with pytest.raises(CheckpointError, match=r"no template lien: .*alpaca-japanese, line, rinna"):
        exported(template="lien")


def test_a_bundle_with_a_chat_template(source: Path, exported: Callable[..., Manifest]) -> None:
    (source.parent / "mine.jinja").write_text(GEMMA, encoding="utf-8")
    manifest = exported(template=source.parent / "mine.jinja")
    assert (manifest.prompt.name, manifest.prompt.newline) == ("mine", "")
    assert isinstance(manifest.prompt, JinjaTemplate)
    assert manifest.prompt.variables["bos_token"] == "<s>"
    bundle = source.parent / "bundle"
    with Model.load(bundle, threads=1) as model:
        params = SamplingParams(max_new_tokens=3, seed=0, min_new_tokens=3)
        chat = Conversation(model, "海賊", params=params)
        chat.reply("山は?")
        chat.read_ahead()
        assert chat.reply("川は?").timings.reused_tokens > 10
        chat.save(source.parent / "saved.json")
        other = Conversation(model, params=params)
        other.load(source.parent / "saved.json")
        assert (other.role, other.turns) == (["海賊"], chat.turns)
        expected = chat.reply("海は?").ids
        assert other.reply("海は?").ids == expected


def texts(name: str, *, role: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """Of an instruction, one with an input, and a conversation, with the template `name`."""
    builder = PromptBuilder(load_template(template_file(name)), LETTERS, 4096)
    turns = [Turn("一\n二", "三"), Turn("四", "五")]
    return (
        LETTERS.text(builder.instruction("訳\n文")),
        LETTERS.text(builder.instruction("訳", "文")),
        LETTERS.text(builder.chat(role, turns, "六</s>", max_new_tokens=1).ids),
    )


def test_the_published_formats() -> None:
    assert texts("line") == (
        "ユーザー: 訳\n文\nシステム: ",
        "ユーザー: 訳\n文\nシステム: ",
        "ユーザー: 一\n二\nシステム: 三\nユーザー: 四\nシステム: 五\nユーザー: 六</s>\nシステム: ",
    )
    assert texts("rinna", role=("役",)) == (
        "ユーザー: 訳<NL>文<NL>システム: ",
        "ユーザー: 訳<NL>文<NL>システム: ",
        "役<NL>ユーザー: 一<NL>二<NL>システム: 三<NL>ユーザー: 四<NL>システム: 五<NL>"
        "ユーザー: 六</s><NL>システム: ",
    )
    assert texts("plain") == ("訳\n文", "訳\n文", "一\n二三\n四五\n六</s>")


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != ALPACA.name])
def test_shipped_templates_have_their_names(name: str) -> None:
    if template_file(name).suffix == ".json":
        template = load_template(template_file(name))
        assert isinstance(template, Template)
        assert template.name == name


def test_chatml_is_the_published_one(exported: Callable[..., Manifest], source: Path) -> None:
    added = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    change(source / "tokenizer_config.json", **added, sep_token=None)
    manifest = exported()
    assert manifest.prompt.name == "chatml"
    builder = PromptBuilder(manifest.prompt, LETTERS, 4096)
    text = LETTERS.text(builder.chat(["役"], [Turn("問", "答")], "次", max_new_tokens=1).ids)
    assert text == (
        "«<|im_start|>»system\n役«<|im_end|>»\n«<|im_start|>»user\n問«<|im_end|>»\n"
        "«<|im_start|>»assistant\n答«<|im_end|>»\n«<|im_start|>»user\n次«<|im_end|>»\n"
        "«<|im_start|>»assistant\n"
    )
    builder.close()
