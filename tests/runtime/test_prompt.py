"""Rendered prompts against the published format, written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.export.template import ALPACA
from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.text.prompt import PromptBuilder
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.text.turn import Turn
from tests.special_ids import assign_special_ids

TOKENS = ["[CLS]", "<unk>", "<s>", "</s>", "[PAD]", "[SEP]", "[MASK]"]

WITH_INPUT = (
    r"<s>\n以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。"
    r"\n[SEP]\n指示:\nINSTRUCTION\n[SEP]\n入力:\nINPUT\n[SEP]\n応答:\n"
)
WITHOUT_INPUT = (
    r"<s>\n以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。"
    r"\n[SEP]\n指示:\nINSTRUCTION\n[SEP]\n応答:\n"
)
ROLE = ["User:あなたは「ずんだもん」なのだ。", "Assistant:了解したのだ!"]


def open_tokenizer(path: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(path, assign_special_ids(path, TOKENS))


@pytest.fixture(scope="module", params=["small", "google_sp"])
def tokenizer(request: Any) -> SentencePieceTokenizer:
    if request.param == "small":
        return open_tokenizer(request.getfixturevalue("spiece"))
    shared = request.getfixturevalue("shared")
    return open_tokenizer(shared / "data" / "tokenizers" / "google_sp.model")


@pytest.fixture(scope="module")
def build(tokenizer: SentencePieceTokenizer) -> Callable[..., PromptBuilder]:
    def make(n_positions: int = 4096, **chat: Any) -> PromptBuilder:
        rules = msgspec.structs.replace(ALPACA.chat, **chat)
        template = msgspec.structs.replace(ALPACA, chat=rules)
        return PromptBuilder(template, tokenizer, n_positions)

    return make


Build = Callable[..., PromptBuilder]


def whole(
    tokenizer: SentencePieceTokenizer, instruction: str, text: str | None = None
) -> list[int]:
    """Return the ids of the prompt encoded as one string, as the model's authors do it."""
    rendered = WITHOUT_INPUT if text is None else WITH_INPUT
    rendered = rendered.replace("INSTRUCTION", instruction).replace("INPUT", text or "")
    return tokenizer.encode(rendered, special=True)


def chat_ids(builder: PromptBuilder, role: list[str], turns: list[Turn], message: str) -> list[int]:
    return builder.chat(role, turns, message, max_new_tokens=100).ids


def test_instruction(tokenizer: SentencePieceTokenizer, build: Build) -> None:
    assert build().instruction("空はなぜ青いの?") == whole(tokenizer, "空はなぜ青いの?")


def test_instruction_with_input(tokenizer: SentencePieceTokenizer, build: Build) -> None:
    ids = build().instruction("訳しなさい。", "今日は雨です。")
    assert ids == whole(tokenizer, "訳しなさい。", "今日は雨です。")
    assert ids.count(tokenizer.special["[SEP]"]) == 3


def test_an_empty_input_counts_as_none(build: Build) -> None:
    assert build().instruction("訳しなさい。", "") == build().instruction("訳しなさい。")


@pytest.mark.parametrize("empty", ["", " ", "\n\t　"])
def test_an_empty_instruction_is_an_error(build: Build, empty: str) -> None:
    with pytest.raises(ParameterError, match="instruction is empty"):
        build().instruction(empty)
    with pytest.raises(ParameterError, match="message is empty"):
        build().chat(ROLE, [], empty, max_new_tokens=1)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_newlines_are_spelled_out(
    tokenizer: SentencePieceTokenizer, build: Build, newline: str
) -> None:
    text = newline.join("一二三")
    assert build().instruction(text, text) == whole(tokenizer, r"一\n二\n三", r"一\n二\n三")
    turn = Turn(text, text)
    expected = whole(tokenizer, r"User:一\n二\n三\nAssistant:一\n二\n三", r"User:一\n二\n三")
    assert chat_ids(build(), [], [turn], text) == expected
    # A trailing newline counts too.
    assert build().instruction("一" + newline) == whole(tokenizer, r"一\n")


@pytest.mark.parametrize(
    "text",
    [
        "a</s>b",
        "[SEP]",
        "<s><s>",
        "{input}",
        "{instruction}",
        "{message}",
        "{line}",
        "{}",
        "{0}",
        "}{",
    ],
)
def test_user_input_stays_text(tokenizer: SentencePieceTokenizer, build: Build, text: str) -> None:
    def rendered(*parts: str) -> list[int]:
        ids = [tokenizer.special["<s>"]]
        for part in parts:
            ids += [*tokenizer.encode(part), tokenizer.special["[SEP]"]]
        return ids[:-1]

    head, *_ = WITHOUT_INPUT.removeprefix("<s>").split("[SEP]")
    assert build().instruction(text) == rendered(head, rf"\n指示:\n{text}\n", r"\n応答:\n")
    head, *_ = WITH_INPUT.removeprefix("<s>").split("[SEP]")
    assert build().instruction(text, text) == rendered(
        head, rf"\n指示:\n{text}\n", rf"\n入力:\n{text}\n", r"\n応答:\n"
    )
    assert chat_ids(build(), [text], [Turn(text, text)], text) == rendered(
        head,
        rf"\n指示:\n{text}\nUser:{text}\nAssistant:{text}\n",
        rf"\n入力:\nUser:{text}\n",
        r"\n応答:\n",
    )


def test_chat_in_the_format_of_the_model_s_authors(
    tokenizer: SentencePieceTokenizer, build: Build
) -> None:
    turns = [Turn("こんにちは!", "ボクは何でも答えられるAIなのだ!"), Turn("山は?", "富士山なのだ!")]
    expected = whole(
        tokenizer,
        r"User:あなたは「ずんだもん」なのだ。\nAssistant:了解したのだ!\n"
        r"User:こんにちは!\nAssistant:ボクは何でも答えられるAIなのだ!\n"
        r"User:山は?\nAssistant:富士山なのだ!",
        "User:日本で一番広い湖は?",
    )
    fitted = build().chat(ROLE, turns, "日本で一番広い湖は?", max_new_tokens=100)
    assert (fitted.ids, fitted.dropped_turns) == (expected, 0)


def test_chat_without_role_or_history(tokenizer: SentencePieceTokenizer, build: Build) -> None:
    assert chat_ids(build(), [], [], "やあ") == whole(tokenizer, "", "User:やあ")
    role_only = whole(
        tokenizer, r"User:あなたは「ずんだもん」なのだ。\nAssistant:了解したのだ!\n", "User:やあ"
    )
    assert chat_ids(build(), ROLE, [], "やあ") == role_only
    history_only = whole(tokenizer, r"User:山は?\nAssistant:富士山", "User:やあ")
    assert chat_ids(build(), [], [Turn("山は?", "富士山")], "やあ") == history_only


def test_empty_instruction_replaces_role_and_history(
    tokenizer: SentencePieceTokenizer, build: Build
) -> None:
    builder = build(empty_instruction="答えなさい。")
    assert chat_ids(builder, [], [], "やあ") == whole(tokenizer, "答えなさい。", "User:やあ")
    assert chat_ids(builder, ["R"], [], "やあ") == whole(tokenizer, r"R\n", "User:やあ")


def test_system_text_becomes_role_lines(build: Build) -> None:
    lines = build().system_lines("語尾は{message}です。")
    assert lines == ["User:語尾は{message}です。", "Assistant:了解しました。"]


def test_the_oldest_turns_go_first(tokenizer: SentencePieceTokenizer, build: Build) -> None:
    turns = [Turn(f"問{i}", "答" * (i + 1)) for i in range(6)]
    role = r"User:あなたは「ずんだもん」なのだ。\nAssistant:了解したのだ!\n"

    def prompt(kept: int) -> list[int]:
        left = turns[len(turns) - kept :]
        history = r"\n".join(rf"User:{t.message}\nAssistant:{t.reply}" for t in left)
        return whole(tokenizer, role + history, "User:次")

    for most in range(7):
        room = len(prompt(most)) + 100
        for n_positions in (room, room + 1):
            builder = build(n_positions)
            fitted = builder.chat(ROLE, turns, "次", max_new_tokens=500)
            # A third of the turns that would fit is dropped too, so that the next turns have room.
            kept = most if most == 6 else most - most // 3
            assert (fitted.ids, fitted.dropped_turns) == (prompt(kept), 6 - kept)
            for told in range(8):
                again = builder.chat(ROLE, turns, "次", max_new_tokens=500, dropped=told)
                same = most < 6 and 6 - most <= told <= 6 - most // 2
                assert again.dropped_turns == (told if same else 6 - kept)


def test_a_template_may_mark_that_turns_were_dropped(
    tokenizer: SentencePieceTokenizer, build: Build
) -> None:
    turns = [Turn(f"問{i}", "答" * 9) for i in range(3)]
    room = len(chat_ids(build(), ["R"], turns, "次")) + 100
    marked = build(room, dropped="…")
    assert chat_ids(marked, ["R"], turns, "次") == chat_ids(build(), ["R"], turns, "次")
    fitted = build(room - 1, dropped="…").chat(["R"], turns, "次", max_new_tokens=100)
    assert fitted.dropped_turns == 1
    last = r"\n".join(rf"User:{t.message}\nAssistant:{t.reply}" for t in turns[1:])
    assert fitted.ids == whole(tokenizer, rf"R\n…\n{last}", "User:次")
    known = marked.before_message(["R"], turns, dropped=1)
    assert fitted.ids[: len(known)] == known
    assert len(known) > len(marked.before_message(["R"], turns[1:]))


def test_the_reserve_is_no_larger_than_the_answer(build: Build) -> None:
    turns = [Turn("問", "答")]
    full = len(chat_ids(build(), [], turns, "次"))
    assert build(full + 7).chat([], turns, "次", max_new_tokens=7).dropped_turns == 0
    assert build(full + 7).chat([], turns, "次", max_new_tokens=8).dropped_turns == 1
    assert build(full + 7, reserve=7).chat([], turns, "次", max_new_tokens=8).dropped_turns == 0


def test_the_error_for_a_long_role_has_the_numbers(build: Build) -> None:
    role = ["User:" + "長い" * 80]
    tokens = len(chat_ids(build(), role, [], "やあ"))
    with pytest.raises(ContextError) as caught:
        build(tokens + 99).chat(role, [Turn("問", "答")], "やあ", max_new_tokens=100)
    assert f"{tokens:,} tokens, and 100 are reserved" in str(caught.value)
    assert f"1 more than the context of {tokens + 99:,}" in str(caught.value)
    assert build(tokens + 100).chat(role, [Turn("問", "答")], "やあ", max_new_tokens=100)


messages = st.text(max_size=8).filter(lambda text: text.strip())


@given(
    st.lists(st.text(max_size=8), max_size=2),
    st.lists(st.builds(Turn, messages, st.text(max_size=8)), max_size=4),
    messages,
    st.integers(200, 400),
)
def test_only_the_template_has_special_tokens(
    tokenizer: SentencePieceTokenizer,
    role: list[str],
    turns: list[Turn],
    message: str,
    n_positions: int,
) -> None:
    builder = PromptBuilder(ALPACA, tokenizer, n_positions)
    fitted = builder.chat(role, turns, message, max_new_tokens=20)
    assert len(fitted.ids) + 20 <= n_positions
    special = [i for i in fitted.ids if i in tokenizer.special.values()]
    sep, unk = tokenizer.special["[SEP]"], tokenizer.special["<unk>"]
    assert [i for i in special if i != unk] == [tokenizer.special["<s>"], sep, sep, sep]


@pytest.mark.parametrize("empty_template_end", [False, True])
@pytest.mark.parametrize("beginning", ["富士", "富士山は\n", "a b", "</s>[SEP]", "{input}"])
def test_an_answer_prefix_is_encoded_together_with_the_template(
    tokenizer: SentencePieceTokenizer, beginning: str, *, empty_template_end: bool
) -> None:
    """Its ids are those of the whole text, as in a training record."""
    template = ALPACA
    if empty_template_end:  # the template ends with a special token
        pattern = ALPACA.with_input.removesuffix(r"\n応答:\n")
        template = msgspec.structs.replace(ALPACA, with_input=pattern)
    builder = PromptBuilder(template, tokenizer, 4096)
    fitted = builder.chat(ROLE, [], "山は?", max_new_tokens=50, answer_prefix=beginning)
    before = builder.chat(ROLE, [], "山は?", max_new_tokens=50).ids
    *_, tail = tokenizer.split(template.with_input)
    text = ("" if isinstance(tail, int) else tail) + beginning.replace("\n", r"\n")
    kept = len(before) - (0 if isinstance(tail, int) else len(tokenizer.encode(tail)))
    assert fitted.ids == before[:kept] + tokenizer.encode(text)
    shared = len(fitted.ids) - fitted.continued
    assert before[:shared] == fitted.ids[:shared]
    assert before[shared : shared + 1] != fitted.ids[shared : shared + 1]
    assert fitted.continued > 0


def test_an_answer_prefix_may_drop_turns(build: Build) -> None:
    turns = [Turn("富士山は?" * 3, "高い山です。" * 3)] * 4
    room = len(build().chat([], turns, "山は?", max_new_tokens=10).ids) + 10
    assert build(room).chat([], turns, "山は?", max_new_tokens=10).dropped_turns == 0
    long = build(room).chat([], turns, "山は?", max_new_tokens=10, answer_prefix="富士山は" * 3)
    assert long.dropped_turns > 0
    assert len(long.ids) + 10 <= room
    with pytest.raises(ContextError):
        build(room).chat([], [], "山は?", max_new_tokens=10, answer_prefix="富士山は" * room)


def test_the_assistant_may_speak_first(tokenizer: SentencePieceTokenizer, build: Build) -> None:
    turns = [Turn("", "こんにちは!"), Turn("元気?", "はい")]
    ids = build().chat([], turns, "山は?", max_new_tokens=10).ids
    history = r"Assistant:こんにちは!\nUser:元気?\nAssistant:はい"
    assert ids == whole(tokenizer, history, "User:山は?")
