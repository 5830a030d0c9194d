"""`issun generate` and `issun inspect`: exact output."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import issun
from tests.needs import links

DEMONSTRATION = (
    "[No bundle is named, so the demonstration model answers: issun generate BUNDLE TEXT]\n"
)


def test_answer_on_stdout(fuji: Path) -> None:
    result = issun("generate", fuji, "--instruction", "山は?", "--input", "日本")
    assert (result.code, result.out, result.err) == (0, "富士山です。\n", "")


@pytest.mark.slow
def test_without_a_bundle_it_says_who_answers() -> None:
    for arguments in (["b4"], ["--instruction", "b4"]):  # a bundle, and the text was forgotten
        result = issun("generate", *arguments)
        assert (result.code, result.err) == (0, DEMONSTRATION)
    assert "デモ用モデルが回答します" in issun("generate", "b4", ISSUN_LANG="ja").err


def prompt_tokens(*arguments: str | Path, **options: str | Path) -> int:
    result = issun("generate", "--json", *arguments, **options)  # type: ignore[arg-type]
    assert result.code == 0, result.err
    count: int = json.loads(result.out)["timings"]["prompt_tokens"]
    return count


def test_the_instruction_as_an_argument(fuji: Path) -> None:
    count = prompt_tokens(fuji, "--instruction", "山は?")
    assert prompt_tokens(fuji, "山は?") == count
    assert prompt_tokens(fuji, "-", stdin="山は?\n") == count
    assert prompt_tokens(fuji, "--", "山は?") == count
    assert prompt_tokens(fuji, "山は?", "--input", "日本") > count
    # Behind a bundle everything is an instruction.
    for text in ("/etcとは?", "./a", "~", str(fuji)):
        assert prompt_tokens(fuji, text) == prompt_tokens(fuji, "--instruction", text)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "text", ["日本で一番高い山は?", "一/二の意味は?", "C:とは?", "〜とは?", "長い話。" * 60, ".net"]
)
def test_an_argument_that_is_no_folder_is_an_instruction(text: str) -> None:
    asked = issun("generate", "--temperature", "0", "--instruction", text)
    assert issun("generate", "--temperature", "0", text) == asked
    assert (asked.code, asked.err) == (0, DEMONSTRATION)


@pytest.mark.slow
@links
def test_an_argument_that_is_a_folder_is_a_bundle(
    fuji: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "山は?").symlink_to(fuji)
    missing = "error: There is no instruction: issun generate [BUNDLE] TEXT\n"
    for arguments in ([], ["山は?"], ["./山は?"], [str(fuji)]):
        result = issun("generate", *arguments)
        assert (result.code, result.out, result.err) == (2, "", missing)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert issun("generate", "~/山は?", "谷は?").out == "富士山です。\n"


@pytest.mark.sampled
@pytest.mark.parametrize(
    "arguments",
    [
        ("/無い",),
        ("./無い",),
        ("../無い",),
        ("~/無い",),
        ("無い", "谷は?"),
        ("無い", "--instruction", "谷は?"),
        ("山" * 300, "谷は?"),
    ],
)
def test_a_bundle_that_is_not_there(arguments: tuple[str, ...]) -> None:
    result = issun("generate", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert "no folder" in result.err or "File name too long" in result.err
    assert result.err.count("\n") == 1


def test_a_name_of_a_file_is_an_instruction_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "質問.txt").write_text("山は?", encoding="utf-8")
    result = issun("generate", "質問.txt")
    assert result.code == 0
    assert result.err.removesuffix(DEMONSTRATION) == (
        "[質問.txt is a file, but its name was taken as the instruction; "
        "to read the file: - < FILE]\n"
    )


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([""], "The instruction is empty."),
        (["", "山は?"], "'' is not a path."),
        (["b", "山は?", "--instruction", "谷は?"], "Give the instruction once: as an argument"),
        (["-", "--input", "-"], "Only one of the instruction and --input can be read"),
    ],
)
def test_arguments_that_say_nothing_or_twice(arguments: list[str], reason: str) -> None:
    result = issun("generate", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {reason}")


def test_json(fuji: Path) -> None:
    result = issun("generate", fuji, "--instruction", "山は?", "--json")
    answer = json.loads(result.out)
    assert answer["text"] == "富士山です。"
    assert "富士山" in result.out, "Japanese is not escaped"
    assert answer["finish_reason"] == "stop"
    assert len(answer["ids"]) + 1 == answer["timings"]["new_tokens"], "the end token is counted"
    assert answer["timings"]["prompt_tokens"] > 10
    latency = answer["timings"]["inter_token_latency"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    assert "token_times" not in answer["timings"]


def test_length(fuji: Path) -> None:
    result = issun("generate", fuji, "--instruction", "a", "--json", "--max-new-tokens", "3")
    answer = json.loads(result.out)
    assert (answer["text"], answer["finish_reason"]) == ("富士", "length")


def test_texts_from_stdin(fuji: Path) -> None:
    for option, other in (("--instruction", "--input"), ("--input", "--instruction")):
        result = issun("generate", fuji, option, "-", other, "山は?", stdin="日本\n")
        assert (result.code, result.out) == (0, "富士山です。\n")


@pytest.mark.slow
def test_same_seed_same_answer(ja_small: "object") -> None:
    bundle = ja_small("int8")  # type: ignore[operator]
    arguments = ("generate", bundle, "--instruction", "猫について書いてください。", "--seed")
    first, again, other = (issun(*arguments, seed).out for seed in ("1", "1", "2"))
    assert first == again
    assert first != other
    assert " ⁇ " not in first + other


@pytest.mark.sampled
@pytest.mark.parametrize(
    "cut",
    [
        ["--regex", "(User:){20}", "--temperature", "9", "--max-new-tokens", "24"],
        ["--regex", "0?12", "--stop", "1"],
        ["--choices", "富士山です。", "--stop", "山"],
        ["--json-schema", "schema.json", "--stop", ":"],
        ["--json-schema", "schema.json", "--stop", ":", "--json"],
    ],
)
def test_a_constrained_answer_that_is_cut(cut: list[str], tmp_path: Path) -> None:
    """Nobody takes half of a JSON for a whole one."""
    file = tmp_path / "schema.json"
    named = [
        {"properties": {"name": {"type": t}}, "required": ["name"]} for t in ("string", "null")
    ]
    file.write_text(json.dumps({"anyOf": named}))  # which has no skeleton
    arguments = [str(file) if argument == file.name else argument for argument in cut]
    result = issun("generate", "--instruction", "山は?", "--seed", "1", *arguments)
    told = "The answer ended before it was complete: raise --max-new-tokens or leave out --stop.\n"
    assert (result.code, result.err) == (1, DEMONSTRATION + told)


@pytest.mark.slow
def test_a_constrained_answer_that_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    for seed in "123":
        arguments = ("--instruction", "1年は何日?", "--json-schema", file, "--seed", seed)
        result = issun("generate", *arguments)
        assert (result.code, result.err) == (0, DEMONSTRATION)
        assert isinstance(json.loads(result.out)["n"], int)
    # Behind the last token there is no room for the end, but the match is complete.
    result = issun("generate", "--instruction", "x", "--regex", "a{1,9}", "--max-new-tokens", "1")
    assert (result.code, result.out) == (0, "a\n")


@pytest.mark.slow
def test_what_cannot_be_spelled_or_does_not_fit_is_told_before_any_work(tmp_path: Path) -> None:
    for arguments, reason in (
        (
            ("--choices", "はい", "--choices", "😀"),
            "choices[1]: the model's vocabulary cannot spell",
        ),
        (("--regex", "[0-9]{90}", "--max-new-tokens", "20"), "regex needs at least 90 tokens, but"),
    ):
        result = issun("generate", "--instruction", "x", *arguments)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"error: {reason}")


def test_inspect(fuji: Path) -> None:
    result = issun("inspect", fuji, "--verify")
    assert result.code == 0
    lines = dict(line.split(": ", 1) for line in result.out.splitlines())
    assert lines["source"].startswith("checkpoint (sha256 ")
    assert lines["precision"] == "int8"
    assert lines["KV cache"] == "float32 (default)"
    assert (
        lines["network"]
        == "gpt2, 1 layers, width 512, 8 heads (8 for keys and values), context 256, 512 ids"
    )
    assert result.err == "All files are as they were exported.\n"


def test_inspect_json_is_the_manifest(fuji: Path) -> None:
    described = json.loads(issun("inspect", fuji, "--json").out)
    assert len(described.pop("id")) == 32
    assert described == json.loads((fuji / "issun.json").read_text(encoding="utf-8"))


def test_no_bundle_means_the_embedded_model() -> None:
    result = issun("generate", "--instruction", "日本で一番高い山は?", "--temperature", "0")
    assert (result.code, result.out) == (0, "日本で一番高い山は富士山です。\n")
    assert "issun-embedded" in issun("inspect").out


@pytest.mark.slow
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
    short = issun(*asked, "--max-new-tokens", "3")
    assert (short.code, short.out) == (2, "")
    assert "needs at least 4 tokens" in short.err
    whole = json.loads(issun(*asked, "--json").out)
    assert whole["text"] == result.out.rstrip()
    assert whole["timings"]["new_tokens"] == len(whole["ids"]) + 2


@pytest.mark.slow
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


@pytest.mark.slow
def test_version_and_help() -> None:
    assert issun("--version").out == "issun 0.1.0\n"
    for command in ([], ["chat"], ["generate"], ["export"], ["inspect"]):
        result = issun(*command, "--help")
        assert result.code == 0
        assert result.out.startswith("Usage: issun")
