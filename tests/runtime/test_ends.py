"""Answers with several end ids and with added tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from issun.export import ExportOptions, export
from issun.runtime import BundleError, Conversation, Model, ParameterError, SamplingParams
from issun.runtime.defaults import make_params
from issun.runtime.manifest import MANIFEST_NAME, AddedToken, Manifest, read_manifest
from issun.runtime.text.tokenizer import load_tokenizer
from tests.added import token, write_files
from tests.cli.conftest import ANSWER
from tests.runtime.decoders import Script, ScriptedDecoder, Ticks, saying
from tests.scripted import write_scripted

GREEDY = SamplingParams(temperature=0)
END, TOOL, USER = 400, 401, 402


@pytest.fixture
def added(bundle: Callable[..., Path]) -> Callable[[Script], Model]:
    """`added(script)`: a model with three added tokens, two end ids and a script."""
    folder = bundle("unscaled", "float32")
    manifest = read_manifest(folder)
    tokens = msgspec.structs.replace(
        manifest.tokens,
        special=manifest.tokens.special | {"<|im_end|>": END, "<|user|>": USER},
        added={"<tool>": AddedToken(id=TOOL)},
        ends=(END, 7),
    )
    manifest = msgspec.structs.replace(manifest, tokens=tokens)

    def make(script: Script) -> Model:
        decoder = ScriptedDecoder(script, n_positions=256, vocab_size=512)
        return Model(decoder, load_tokenizer(folder, tokens), manifest, clock=Ticks())

    return make


@pytest.mark.parametrize("end", [3, END, 7])
def test_every_end_id_ends_an_answer_and_is_not_in_it(
    added: Callable[[Script], Model], end: int
) -> None:
    model = added(saying(40, 41, end, 42, after=3))
    answer = model.generate([2, 50, 51], GREEDY)
    assert (answer.ids, answer.finish_reason) == ([40, 41], "stop")
    assert answer.text == model.tokenizer.decode([40, 41])
    stream = model.stream([2, 50, 51], GREEDY)
    assert [segment.id for segment in stream] == [40, 41, end]
    assert stream.finish().ids == [40, 41]


def test_added_tokens_are_sampled_and_rows_without_a_token_never(
    added: Callable[[Script], Model],
) -> None:
    model = added(saying(40, TOOL, USER, 403, 511, 41, END, after=3))
    answer = model.generate([2, 50, 51], replace(GREEDY, max_new_tokens=7))
    assert answer.ids[:3] == [40, TOOL, USER]
    assert not {403, 511} & set(answer.ids)
    text = model.tokenizer.decode([40]) + "<tool>"
    assert model.generate([2, 50, 51], replace(GREEDY, max_new_tokens=3)).text == text


def test_no_end_id_comes_before_min_new_tokens(added: Callable[[Script], Model]) -> None:
    model = added(saying(3, END, 7, END, after=3))
    answer = model.generate([2, 50, 51], replace(GREEDY, min_new_tokens=3))
    assert len(answer.ids) == 3
    assert not {3, END, 7} & set(answer.ids)
    assert answer.finish_reason == "stop"


def test_a_conversation_continues_after_any_end_id(added: Callable[[Script], Model]) -> None:
    def script(ids: list[int]) -> int:
        return {TOOL: END, END: 40}.get(ids[-1], TOOL)

    chat = Conversation(added(script), params=GREEDY)
    assert [chat.reply("猫は?").text for _ in range(3)] == ["<tool>"] * 3
    assert [turn.reply for turn in chat.turns] == ["<tool>"] * 3


# The manifest


def test_an_older_manifest_has_no_added_tokens_and_keeps_its_id(
    bundle: Callable[..., Path],
) -> None:
    manifest = read_manifest(bundle("unscaled", "float32"))
    described = msgspec.to_builtins(manifest.tokens)
    assert not {"added", "ends"} & described.keys()
    assert manifest.tokens.end_ids == {3}
    changed = msgspec.structs.replace(
        manifest, tokens=msgspec.structs.replace(manifest.tokens, ends=(5,))
    )
    assert changed.bundle_id != manifest.bundle_id


@pytest.mark.parametrize(
    ("tokens", "fault"),
    [
        ({"ends": [512]}, "end id 512 is 512"),
        ({"added": {"<a>": {"id": 512}}}, "<a> is 512"),
        ({"added": {"": {"id": 400}}}, "a special token is empty"),
    ],
)
def test_tokens_that_do_not_match_the_network(
    folder: Path, tokens: dict[str, Any], fault: str
) -> None:
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    content["tokens"] |= tokens
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=fault):
        Model.load(folder, threads=1)


def test_max_new_tokens_lowers_the_bundle_s_min_new_tokens(bundle: Callable[..., Path]) -> None:
    manifest: Manifest = read_manifest(bundle("unscaled", "float32"))
    sampling = manifest.sampling | {"min_new_tokens": 30, "banned_sequences": [[8, 9]]}
    manifest = msgspec.structs.replace(manifest, sampling=sampling)
    assert make_params(manifest).banned_sequences == ((8, 9),)
    assert make_params(manifest, max_new_tokens=50).min_new_tokens == 30
    assert make_params(manifest, max_new_tokens=16).min_new_tokens == 16
    assert make_params(manifest, max_new_tokens=40, min_new_tokens=35).min_new_tokens == 35


def test_details_of_a_filter_that_is_off_are_refused(bundle: Callable[..., Path]) -> None:
    manifest: Manifest = read_manifest(bundle("unscaled", "float32"))
    refused: list[dict[str, Any]] = [
        {"mirostat_tau": 3},
        {"xtc_probability": 0, "xtc_threshold": 0.2},
        {"dry_sequence_breakers": ("。",)},
    ]
    for changes in refused:
        with pytest.raises(ParameterError, match="which has no effect while"):
            make_params(manifest, **changes)
    assert make_params(manifest, mirostat=2, mirostat_tau=3).mirostat_tau == 3
    on = msgspec.structs.replace(manifest, sampling=manifest.sampling | {"mirostat": 2})
    assert make_params(on, mirostat_tau=3).mirostat_tau == 3


# From the checkpoint to the answer


@pytest.fixture(scope="module")
def fuji(spiece: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model that generates 富士山です。 and whose checkpoint has です as an end id."""
    folder = write_scripted(tmp_path_factory.mktemp("ends") / "checkpoint", spiece, ANSWER)
    table = {
        str(END): token("<|im_end|>"),
        str(TOOL): token("<tool>", special=False),
    }
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_files(
        folder,
        {
            "tokenizer_config.json": config | {"added_tokens_decoder": table},
            "generation_config.json": {"eos_token_id": [END, last_of(folder, ANSWER)]},
        },
    )
    manifest = export(folder, folder.parent / "bundle", ExportOptions(precision="float32"))
    assert manifest.tokens.added == {"<tool>": AddedToken(id=TOOL)}
    with Model.load(folder.parent / "bundle", threads=1) as model:
        yield model


def last_of(folder: Path, text: str) -> int:
    import sentencepiece

    file = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    last: int = file.encode(text)[-1]
    return last


def test_a_whole_batch_ends_at_the_checkpoint_s_end_ids(fuji: Model) -> None:
    prompts = [fuji.prompt(text) for text in ("猫は?", "犬は好きですか?", "山は?")]
    answers = fuji.generate_many(prompts, GREEDY)
    assert [a.text for a in answers] == [ANSWER[:-1]] * 3
    assert {a.finish_reason for a in answers} == {"stop"}
    assert not {a.ids[-1] for a in answers} & fuji.manifest.tokens.end_ids


def test_constrained_answers_end_at_any_end_id(fuji: Model) -> None:
    pytest.importorskip("llguidance")
    prompt = fuji.prompt("山は?")
    for text in ("富士山", "<tool>富士山"):
        constraint = fuji.constraints.choices([text])
        answer = fuji.generate(prompt, replace(GREEDY, constraint=constraint))
        assert (answer.text, answer.finish_reason) == (text, "stop")
    # The end id that is a piece of text ends answers: it has no spelling within them.
    constraint = fuji.constraints.regex("富士山.*")
    assert "。" not in fuji.generate(prompt, replace(GREEDY, constraint=constraint)).text
