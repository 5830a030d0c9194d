"""The KV cache of a saved conversation: loaded for the same bundle, ignored for others."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issun.runtime import BusyError, Conversation, ConversationError, Model, Turn
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.decoding.kv_file import read_kv, write_kv
from issun.runtime.text.prefix import common_prefix
from tests.needs import has_mode
from tests.runtime.chats import GREEDY, ROLE

KINDS = ("float32", "int8")


@pytest.fixture(scope="module")
def models(bundle: Callable[..., Path]) -> dict[str, Model]:
    folder = bundle("unscaled", "int8", kv_cache="int8")
    return {kind: Model.load(folder, threads=1, kv_cache=kind) for kind in KINDS}


@pytest.fixture
def model(models: dict[str, Model]) -> Model:
    return models["float32"]


def saved(model: Model, folder: Path) -> tuple[Path, Conversation]:
    """A conversation of two turns, and the file that it was saved to."""
    chat = Conversation(model, ROLE, params=GREEDY)
    for message in ("山は?", "川は?"):
        chat.reply(message)
    path = folder / "saved.json"
    chat.save(path)
    return path, chat


def loaded(model: Model, path: Path) -> Conversation:
    chat = Conversation(model, params=GREEDY)
    chat.load(path)
    return chat


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_is_not_computed_again(
    models: dict[str, Model], tmp_path: Path, kind: str
) -> None:
    model = models[kind]
    path, chat = saved(model, tmp_path)
    beside = tmp_path / "saved.json.kv"
    assert has_mode(beside, 0o600)
    other = loaded(model, path)
    known = model.prompts.before_message(chat.role, chat.turns)
    held = common_prefix(chat._cache.ids[0], known)
    assert other._cache.ids == [known[:held]]
    assert held > 0
    assert isinstance(other._cache, KVCache)
    assert isinstance(chat._cache, KVCache)
    np.testing.assert_array_equal(
        other._cache.buffers[:, :, :, :held], chat._cache.buffers[:, :, :, :held]
    )
    first, second = chat.reply("海は?"), other.reply("海は?")
    assert first.ids == second.ids
    assert first.timings.reused_tokens == second.timings.reused_tokens > 0


def test_the_prefill_of_a_role_can_be_saved(model: Model, tmp_path: Path) -> None:
    chat = Conversation(model, ROLE, params=GREEDY)
    known = chat.read_ahead()
    assert known > 0
    chat.save(tmp_path / "role.json")
    other = loaded(model, tmp_path / "role.json")
    assert (other.role, other.turns) == (ROLE, [])
    assert other.read_ahead() == 0
    assert other.reply("山は?").timings.reused_tokens >= known - 1


def test_without_the_cache_there_is_one_file(model: Model, tmp_path: Path) -> None:
    _, chat = saved(model, tmp_path)
    chat.save(tmp_path / "plain.json", keep_cache=False)
    assert not (tmp_path / "plain.json.kv").exists()
    assert loaded(model, tmp_path / "plain.json").turns == chat.turns
    Conversation(model, ROLE).save(tmp_path / "empty.json")
    assert not (tmp_path / "empty.json.kv").exists()


def test_values_of_another_type_or_bundle_are_ignored(
    models: dict[str, Model], bundle: Callable[..., Path], tmp_path: Path
) -> None:
    path, chat = saved(models["float32"], tmp_path)
    others = models["int8"], Model.load(bundle("unscaled", "float32"), threads=1)
    for model in others:
        other = loaded(model, path)
        assert other._cache.ids == [[]]
        assert other.turns == chat.turns
        fresh = Conversation(model, ROLE, params=GREEDY)
        fresh.turns = list(chat.turns)
        assert other.reply("海は?").ids == fresh.reply("海は?").ids


def cut(raw: bytes) -> bytes:
    return raw[:-1]


def longer(raw: bytes) -> bytes:
    return raw + b"\0"


def flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


def renamed(raw: bytes) -> bytes:
    return raw.replace(b'"ids":[', b'"ids":[[', 1)


def other_ids(raw: bytes) -> bytes:
    """The values of as many other tokens."""
    start = raw.index(b'"ids":[') + 7
    return raw[:start] + (b"7" if raw[start : start + 1] != b"7" else b"8") + raw[start + 1 :]


def nothing(raw: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, longer, flipped, renamed, other_ids, nothing])
def test_damaged_values_are_computed_again(
    model: Model, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path, chat = saved(model, tmp_path)
    beside = tmp_path / "saved.json.kv"
    beside.write_bytes(damage(beside.read_bytes()))
    other = loaded(model, path)
    assert other._cache.ids == [[]]
    assert other.reply("海は?").ids == chat.reply("海は?").ids


def test_more_positions_than_the_model_has(model: Model, tmp_path: Path) -> None:
    _, chat = saved(model, tmp_path)
    assert isinstance(chat._cache, KVCache)
    chat._cache.ids[0] = chat._cache.ids[0] * 99
    long = chat._cache
    short = model.new_cache()
    assert isinstance(short, KVCache)
    write_kv(tmp_path / "long.kv", long, short.positions + 1, "id")
    assert read_kv(tmp_path / "long.kv", short, "id") is None


def test_a_full_disk_leaves_the_turns_and_no_partial_file(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    _, chat = saved(model, tmp_path)
    monkeypatch.setattr("issun.runtime.decoding.kv_file.zlib.crc32", full)
    with pytest.raises(ConversationError, match=r"was written, but not the KV cache .*No space"):
        chat.save(tmp_path / "full.json")
    assert not (tmp_path / "full.json.kv").exists()
    assert loaded(model, tmp_path / "full.json").turns == chat.turns


def test_an_existing_file_at_the_cache_s_path_is_kept(model: Model, tmp_path: Path) -> None:
    _, chat = saved(model, tmp_path)
    (tmp_path / "new.json.kv").write_text("mine")
    with pytest.raises(ConversationError, match=r"new\.json\.kv exists: choose another"):
        chat.save(tmp_path / "new.json")
    assert (tmp_path / "new.json.kv").read_text() == "mine"
    assert not (tmp_path / "new.json").exists()


def test_undone_turns_are_not_written(model: Model, tmp_path: Path) -> None:
    chat = Conversation(model, ROLE, params=GREEDY)
    chat.reply("秘密の話")
    chat.reset()
    chat.save(tmp_path / "saved.json")
    header = json.loads((tmp_path / "saved.json.kv").read_bytes().split(b"\n", 1)[0])
    known = model.prompts.before_message(ROLE, [])
    assert header["ids"] == known[: len(header["ids"])]
    assert 0 < len(header["ids"]) <= len(known)


def test_a_conversation_with_a_full_context_continues_after_loading(
    model: Model, tmp_path: Path
) -> None:
    chat = Conversation(model, ROLE, params=GREEDY)
    while not chat._dropped:
        chat.reply("山は?")
        chat.turns[-1] = Turn("山は?", "富士山です。")
    chat.reply("川は?")
    chat.read_ahead()
    chat.save(tmp_path / "full.json")
    other = loaded(model, tmp_path / "full.json")
    assert other.read_ahead() == 0
    completion, expected = other.reply("海は?"), chat.reply("海は?")
    assert completion.dropped_turns == expected.dropped_turns > 0
    assert completion.ids == expected.ids
    assert completion.timings.reused_tokens >= expected.timings.reused_tokens - 1


def test_only_the_text_is_saved_while_the_model_answers(model: Model, tmp_path: Path) -> None:
    _, chat = saved(model, tmp_path)
    stream = chat.stream("海は?")
    assert chat.save(tmp_path / "now.json") == 0
    with pytest.raises(BusyError):
        chat.load(tmp_path / "now.json")
    stream.close()
    assert not (tmp_path / "now.json.kv").exists()
    assert chat.save(tmp_path / "later.json") > 0


def test_a_file_with_extra_data_is_not_read(model: Model, tmp_path: Path) -> None:
    path, _ = saved(model, tmp_path)
    beside = tmp_path / "saved.json.kv"
    os.truncate(beside, 1 << 40)
    assert loaded(model, path)._cache.ids == [[]]
