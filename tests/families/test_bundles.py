"""A bundle of every family in chat, generate, serve, the Python API and the weight cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from issun.export import ExportOptions, export
from issun.runtime import Conversation, Model, SamplingParams
from tests.cli.conftest import issun
from tests.families.conftest import KINDS, Made
from tests.server.conftest import running

QUESTIONS = ["日本で一番高い山は?", "Tell me a story about 一寸法師 🐭.\n短く。", "1+1=?"]
GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.parametrize("name", KINDS)


@pytest.fixture
def model(made: Made, name: str) -> Iterator[Model]:
    with Model.load(made(name), threads=1) as model:
        yield model


def test_several_prompts_get_the_answers_that_each_gets_alone(model: Model) -> None:
    prompts = [model.prompt(question) for question in QUESTIONS]
    alone = [model.generate(prompt, GREEDY) for prompt in prompts]
    together = model.generate_many(prompts, GREEDY, slots=3)
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    assert [answer.text for answer in together] == [answer.text for answer in alone]


def test_streams_join_to_the_answer(model: Model) -> None:
    params = SamplingParams(temperature=1.5, seed=3, max_new_tokens=60)
    prompt = model.prompt(QUESTIONS[1])
    joined = "".join(segment.text for segment in model.stream(prompt, params))
    answer = model.generate(prompt, params)
    assert joined == answer.text
    assert len(joined) > 10
    assert model.tokenizer.decode(answer.ids).startswith(joined[:5])


def test_a_conversation_computes_only_what_is_new(model: Model) -> None:
    chat = Conversation(model, params=GREEDY)
    for question in QUESTIONS:
        chat.reply(question)
    last = chat.reply("もう一度?")
    fresh = Conversation(model, params=GREEDY)
    fresh.turns.extend(chat.turns[:-1])
    again = fresh.reply("もう一度?")
    assert last.ids == again.ids
    assert last.timings.reused_tokens > again.timings.reused_tokens


def test_saved_conversations_go_on(model: Model, tmp_path: Path) -> None:
    chat = Conversation(model, params=GREEDY)
    chat.reply(QUESTIONS[0])
    assert chat.save(tmp_path / "chat.json")
    loaded = Conversation(model, params=GREEDY)
    loaded.load(tmp_path / "chat.json")
    assert loaded.turns == chat.turns
    assert loaded.reply("次は?").ids == chat.reply("次は?").ids


@pytest.mark.sampled
def test_long_conversations_drop_their_oldest_turns(model: Model) -> None:
    chat = Conversation(model, params=SamplingParams(temperature=0, max_new_tokens=4))
    text = "むかしむかし、あるところにおじいさんとおばあさんがいました。" * 12
    dropped = [chat.reply(text).dropped_turns for _ in range(14)]
    assert dropped[0] == 0
    assert dropped[-1] > 0


@pytest.mark.sampled
def test_a_schema_constrains_the_answer(made: Made, name: str, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    done = issun(
        *("generate", made(name), "人を一人。", "--json-schema", tmp_path / "schema.json"),
        *("--max-new-tokens", "60", "--seed", "1"),
    )
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert isinstance(answer["age"], int)
    assert isinstance(answer["name"], str)


@pytest.mark.sampled
def test_a_schema_constrains_japanese(model: Model) -> None:
    constraint = model.constraints.choices(["はい、そうです。", "いいえ"])
    params = SamplingParams(temperature=2, seed=5, max_new_tokens=40, constraint=constraint)
    assert model.generate(model.prompt("そうですか?"), params).text in {
        "はい、そうです。",
        "いいえ",
    }


@pytest.mark.slow
def test_chat(made: Made, name: str) -> None:
    done = issun("chat", made(name), stdin="こんにちは\n/undo\nさようなら\n/quit\n")
    assert done.code == 0, done.err


@pytest.mark.sampled
def test_serve(model: Model) -> None:
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    with running(model) as server:
        body = {"messages": messages, "temperature": 0, "max_tokens": 8}
        answers = [server.post("/v1/chat/completions", body).json() for _ in range(2)]
        texts = [answer["choices"][0]["message"]["content"] for answer in answers]
        raw = server.post("/v1/completions", {"prompt": "むかし", "max_tokens": 4})
    assert texts[0] == texts[1]
    assert raw.status_code == 200


@pytest.mark.sampled
@pytest.mark.parametrize("echo", [False, True])
def test_offsets_of_a_completion_index_its_text(model: Model, name: str, echo: bool) -> None:
    prompt = model.encode("Tell me 鮨 a story")
    body = {"prompt": [prompt], "echo": echo, "logprobs": 1, "max_tokens": 3, "temperature": 0}
    with running(model) as server:
        (choice,) = server.post("/v1/completions", body).json()["choices"]
    offsets = choice["logprobs"]["text_offset"]
    if echo:
        decoded = [model.tokenizer.decode(prompt[:count]) for count in range(len(prompt) + 1)]
        assert offsets[: len(decoded)] == [len(text.rstrip("\ufffd")) for text in decoded]
    for start, token in zip(offsets, choice["logprobs"]["tokens"], strict=True):
        if "\ufffd" not in token:
            assert choice["text"][start:].lstrip().startswith(token.strip())


@pytest.mark.slow
def test_packed_weights_give_the_same_logits(made: Made, name: str) -> None:
    ids = list(range(30, 60))
    with Model.load(made(name), threads=1, keep_packed=False) as plain:
        expected = plain.score(ids)
    for _ in range(2):  # packs, then maps
        with Model.load(made(name), threads=1) as packed:
            assert (packed.score(ids) == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_every_precision(made: Made, name: str, precision: str) -> None:
    with Model.load(made(name, precision, "float32"), threads=1) as model:
        assert len(model.generate(model.prompt(QUESTIONS[0]), GREEDY).ids) > 0


@pytest.mark.sampled
def test_inspect_names_the_family(made: Made, name: str) -> None:
    done = issun("inspect", made(name))
    assert done.code == 0
    assert KINDS[name].family.replace("-", "_") in done.out


def test_drafts_change_no_answer(model: Model) -> None:
    quoted = "鳥が鳴く。犬が鳴く。鳥が鳴く。犬が鳴く。鳥が"
    ids = model.tokenizer.encode(quoted)
    answers = [
        model.generate(ids, SamplingParams(temperature=0, max_new_tokens=24, lookup=lookup)).ids
        for lookup in (True, False)
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [{"precision": "int4"}, {"max_kl": 0.05}, {"budget": 1_600_000}],
    ids=str,
)
def test_fitted_and_mixed_weights(
    source: Callable[[str], Path], name: str, option: dict[str, Any], tmp_path: Path
) -> None:
    export(source(name), tmp_path / "bundle", ExportOptions(**option))
    with Model.load(tmp_path / "bundle", threads=1, keep_packed=False) as model:
        assert model.generate(model.prompt(QUESTIONS[0]), GREEDY).ids


@pytest.mark.slow
def test_fidelity_is_measured(source: Callable[[str], Path], made: Made, name: str) -> None:
    done = issun("bench", "fidelity", made(name), "--against", made(name, "float32", "float32"))
    assert done.code == 0, done.err
    assert "KL" in done.out
