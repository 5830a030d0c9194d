"""`issun generate` and `issun inspect`: exact output."""

import json
from pathlib import Path

from tests.cli.conftest import issun


def test_answer_on_stdout(fuji: Path) -> None:
    result = issun("generate", fuji, "--instruction", "山は?", "--input", "日本")
    assert (result.code, result.out, result.err) == (0, "富士山です。\n", "")


def test_json(fuji: Path) -> None:
    result = issun("generate", fuji, "--instruction", "山は?", "--json")
    answer = json.loads(result.out)
    assert answer["text"] == "富士山です。"
    assert "富士山" in result.out, "Japanese is not escaped"
    assert answer["finish_reason"] == "stop"
    assert len(answer["ids"]) + 1 == answer["timings"]["new_tokens"], "the end token is counted"
    assert answer["timings"]["prompt_tokens"] > 10


def test_length(fuji: Path) -> None:
    result = issun("generate", fuji, "--instruction", "a", "--json", "--max-new-tokens", "3")
    answer = json.loads(result.out)
    assert (answer["text"], answer["finish_reason"]) == ("富士", "length")


def test_texts_from_stdin(fuji: Path) -> None:
    for option, other in (("--instruction", "--input"), ("--input", "--instruction")):
        result = issun("generate", fuji, option, "-", other, "山は?", stdin="日本\n")
        assert (result.code, result.out) == (0, "富士山です。\n")


def test_same_seed_same_answer(ja_small: "object") -> None:
    bundle = ja_small("int8")  # type: ignore[operator]
    arguments = ("generate", bundle, "--instruction", "猫について書いてください。", "--seed")
    first, again, other = (issun(*arguments, seed).out for seed in ("1", "1", "2"))
    assert first == again
    assert first != other
    assert " ⁇ " not in first + other


def test_inspect(fuji: Path) -> None:
    result = issun("inspect", fuji, "--verify")
    assert result.code == 0
    lines = dict(line.split(": ", 1) for line in result.out.splitlines())
    assert lines["source"].startswith("checkpoint (sha256 ")
    assert lines["precision"] == "int8"
    assert lines["KV cache"] == "float32 (default)"
    assert lines["network"] == "GPT-2, 1 layers, width 512, 8 heads, context 256, 512 ids"
    assert result.err == "Every file has the content that it was exported with.\n"


def test_inspect_json_is_the_manifest(fuji: Path) -> None:
    described = json.loads(issun("inspect", fuji, "--json").out)
    assert len(described.pop("id")) == 32
    assert described == json.loads((fuji / "issun.json").read_text(encoding="utf-8"))


def test_no_bundle_means_the_embedded_model() -> None:
    result = issun("generate", "--instruction", "日本で一番高い山は?", "--temperature", "0")
    assert (result.code, result.out) == (0, "日本で一番高い山は富士山です。\n")
    assert "issun-embedded" in issun("inspect").out


def test_json_is_filled_leaf_by_leaf(tmp_path: Path) -> None:
    properties = {"首都": {"type": "string"}, "大陸": {"enum": ["アジア", "ヨーロッパ"]}}
    schema = {"type": "object", "properties": properties, "required": ["首都", "大陸"]}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), encoding="utf-8")
    asked = (
        "generate",
        "--instruction",
        "フランスについて教えて",
        "--temperature",
        "0",
        "--json-schema",
        file,
    )
    result = issun(*asked)
    assert (result.code, result.out) == (0, '{"首都":"パリ","大陸":"ヨーロッパ"}\n')
    cut = issun(*asked, "--max-new-tokens", "12")
    assert (cut.code, cut.out) == (1, '{"首都":"パリ"\n')
    assert "--max-new-tokens" in cut.err
    whole = json.loads(issun(*asked, "--json").out)
    assert whole["text"] == result.out.rstrip()
    assert whole["timings"]["new_tokens"] == len(whole["ids"]) + 2


def test_json_of_a_vocabulary_without_braces(ja_small: "object", tmp_path: Path) -> None:
    bundle = ja_small("int8")  # type: ignore[operator]
    properties = {
        "名前": {"type": "string", "maxLength": 9},
        "数": {"type": "integer"},
        "猫": {"type": "boolean"},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), encoding="utf-8")
    result = issun(
        "generate",
        bundle,
        "--instruction",
        "猫について教えてください。",
        "--json-schema",
        file,
        "--seed",
        "1",
    )
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [type(found[name]) for name in properties] == [str, int, bool]
    assert 0 < len(found["名前"]) <= 9


def test_version_and_help() -> None:
    assert issun("--version").out == "issun 0.1.0\n"
    for command in ([], ["chat"], ["generate"], ["export"], ["inspect"]):
        result = issun(*command, "--help")
        assert result.code == 0
        assert result.out.startswith("Usage: issun")
