"""A server of a model that ends answers with several ids, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece

from issun.export import export
from issun.runtime import Model
from tests.added import token, write_files
from tests.scripted import write_scripted
from tests.server.conftest import Running, running

ANSWER = "富士山です。"


@pytest.fixture(scope="module")
def fuji(spiece: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It would say 富士山です。, and one of its end ids is 。"""
    folder = write_scripted(tmp_path_factory.mktemp("ends") / "checkpoint", spiece, ANSWER)
    file = sentencepiece.SentencePieceProcessor(model_file=str(spiece))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    table = {"400": token("<|im_end|>"), "401": token("<tool>", special=False)}
    write_files(
        folder,
        {
            "tokenizer_config.json": config | {"added_tokens_decoder": table},
            "generation_config.json": {
                "eos_token_id": [400, file.encode(ANSWER)[-1]],
                "min_new_tokens": 2,
                "do_sample": False,
            },
        },
    )
    export(folder, folder.parent / "bundle")
    with Model.load(folder.parent / "bundle", threads=1) as model, running(model) as server:
        yield server


def test_an_answer_ends_at_each_of_them(fuji: Running) -> None:
    body = {"messages": [{"role": "user", "content": "山は?"}], "logprobs": True}
    (choice,) = fuji.post("/v1/chat/completions", body).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (ANSWER[:-1], "stop")
    streamed = fuji.post("/v1/chat/completions", body | {"stream": True}).text
    assert '"finish_reason":"stop"' in streamed.replace(" ", "")


def test_a_client_s_short_answer_goes_before_the_bundle_s_least(fuji: Running) -> None:
    body = {"messages": [{"role": "user", "content": "山は?"}], "max_tokens": 1}
    response = fuji.post("/v1/chat/completions", body)
    assert response.status_code == 200
    assert response.json()["choices"][0]["finish_reason"] == "length"


def test_text_tokens_are_tokens_and_special_ones_text(fuji: Running) -> None:
    ids = fuji.post("/tokenize", {"prompt": "山<tool><|im_end|>"}).json()["tokens"]
    assert ids.count(401) == 1
    assert 400 not in ids
    assert fuji.post("/detokenize", {"tokens": ids[:3]}).json()["prompt"].endswith("<tool>")
