"""The prompt cache: a template's prefix is computed once per bundle and never changes an answer."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.runtime import Completion, Conversation, OutOfMemoryError
from issun.runtime.decoding import kv_cache, kv_file, prompt_cache
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.decoding.prompt_cache import PromptCache
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.weights.weight_cache import WeightCache
from tests.needs import has_mode
from tests.runtime.packed import load, the_entry

# Draft tokens would be as many as this machine's steps allow, and round logits differently.
PARAMS = SamplingParams(temperature=0, max_new_tokens=8, min_new_tokens=8, logprobs=3, lookup=False)


def answer(folder: Path, asked: str = "山は?", **options: object) -> tuple[Completion, list[int]]:
    """Load a model, generate an answer, and return it with the lengths of the chunks computed."""
    with load(folder, **options) as model:
        chunks: list[int] = []
        forward = model.decoder.forward

        def noting(cache: Any, read: Any, rows: Any) -> Any:
            chunks.append(len(read[0]))
            return forward(cache, read, rows)

        model.decoder.forward = noting  # type: ignore[method-assign]
        return model.generate(model.prompt(asked), PARAMS), chunks


def kept(cache: WeightCache) -> list[Path]:
    return sorted(the_entry(cache).glob("preamble-*"))


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_later_start_computes_only_the_rest_and_answers_the_same(
    bundle: Callable[..., Path], cache: WeightCache, precision: str, kind: str
) -> None:
    folder = bundle("head-20-width-100", precision, kv_cache="int8")
    (first, chunks), (second, fewer) = (answer(folder, kv_cache=kind) for _ in range(2))
    (path,) = kept(cache)
    assert path.name == f"preamble-1-{kind}.kv"
    assert has_mode(path, 0o600)
    assert (second.ids, second.logprobs) == (first.ids, first.logprobs)
    assert fewer[0] == chunks[1]
    begin = chunks[0]
    assert begin >= 8
    assert first.timings.reused_tokens == 0
    assert second.timings.reused_tokens == begin
    assert second.timings.prompt_tokens == first.timings.prompt_tokens


def test_its_size_counts_in_the_weight_cache(folder: Path, cache: WeightCache) -> None:
    answer(folder)
    (entry,) = cache.entries()
    (path,) = kept(cache)
    others = (the_entry(cache) / "index.json", *the_entry(cache).glob("row-cost-*"), path)
    expected = entry.packed.size + sum(other.stat().st_size for other in others)
    assert cache.size_of(entry.key) == expected
    assert cache.clear() == expected


def test_prompts_with_and_without_input_have_different_prefixes(
    folder: Path, cache: WeightCache
) -> None:
    with load(folder) as model:
        for asked in (("山は?", None), ("川は?", "信濃川"), ("海は?", None)):
            model.generate(model.prompt(*asked), PARAMS)
        with_input, without = model.prompts.constant_prefixes()
        assert [path.name for path in kept(cache)] == [f"preamble-{i}-float32.kv" for i in (0, 1)]
        for ids, path in zip((with_input, without), kept(cache), strict=True):
            held = model.decoder.new_cache()
            state = prompt_cache.bundle_fingerprint(folder, model.manifest)
            found = kv_file.read_kv(path, held, state)  # type: ignore[arg-type]
            assert found is not None
            assert found.ids == ids  # no user text
        assert "山" not in model.tokenizer.decode(without)


def test_conversations_use_it_too(folder: Path, cache: WeightCache) -> None:
    params = SamplingParams(temperature=0, max_new_tokens=4)
    with load(folder) as model:
        first = Conversation(model, params=params).reply("山は?")
    with load(folder) as model:
        begin = len(model.prompts.constant_prefixes()[0])
        second = Conversation(model, params=params).reply("山は?")
        assert (second.ids, second.timings.reused_tokens) == (first.ids, begin)
        ahead = Conversation(model, params=params)
        known = model.prompts.before_message([], [])
        assert ahead.read_ahead() == len(known) - begin


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_file_is_rewritten(folder: Path, cache: WeightCache, keep: int) -> None:
    expected, _ = answer(folder)
    (path,) = kept(cache)
    sound = path.read_bytes()
    path.write_bytes(sound[:keep] + (b"\0" if keep == -1 else b""))
    found, _ = answer(folder)
    assert (found.ids, found.timings.reused_tokens) == (expected.ids, 0)
    assert kept(cache)[0].read_bytes() == sound


@pytest.mark.parametrize("how", ["written", "copied", "times set back"])
def test_values_of_a_damaged_bundle_are_not_used_after_its_repair(
    folder: Path, cache: WeightCache, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Treat every file as too large to be hashed.
    monkeypatch.setattr("issun.runtime.model.ALWAYS_VERIFIED_BYTES", 0)
    with load(folder, keep_packed=False) as model:
        expected = model.generate(model.prompt("山は?"), PARAMS)
    graph = folder / "model.onnx"
    sound, times = graph.read_bytes(), (graph.stat().st_atime_ns, graph.stat().st_mtime_ns)
    scale = first_scale(folder)
    graph.write_bytes(sound.replace(scale, bytes(len(scale))))
    os.utime(graph, ns=times)
    damaged, _ = answer(folder)
    assert damaged.logprobs != expected.logprobs
    if how == "copied":
        (folder / "copy").write_bytes(sound)
        (folder / "copy").replace(graph)
    else:
        graph.write_bytes(sound)
    if how == "times set back":
        os.utime(graph, ns=times)
    found, _ = answer(folder)
    assert found.logprobs == expected.logprobs


def first_scale(folder: Path) -> bytes:
    """Return a LayerNormalization's weights, which are in the graph and never packed."""
    import onnx_ir as ir

    tensor = ir.load(folder / "model.onnx").graph.initializers["h.0.norm_1.weight"].const_value
    assert tensor is not None
    return tensor.tobytes()


def test_the_file_is_kept_if_there_is_no_memory_to_load_it(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_left(size: int) -> None:
        raise MemoryError(size)

    answer(folder)
    (path,) = kept(cache)
    sound = path.read_bytes()
    with monkeypatch.context() as short:
        short.setattr(kv_cache, "check_memory", nothing_left)
        with pytest.raises(OutOfMemoryError):
            answer(folder)
    assert path.read_bytes() == sound
    assert answer(folder)[0].timings.reused_tokens > 0


def test_another_bundle_s_file_is_not_used(
    folder: Path, bundle: Callable[..., Path], cache: WeightCache
) -> None:
    answer(folder)
    (path,) = kept(cache)
    content = path.read_bytes()
    expected, _ = answer(folder, keep_packed=False)
    cache.clear()
    answer(bundle("unscaled"))
    other = kept(cache)[0].read_bytes()
    cache.clear()
    answer(folder)
    path.write_bytes(other)
    found, _ = answer(folder)
    assert (found.ids, found.timings.reused_tokens) == (expected.ids, 0)
    assert path.read_bytes() == content


def test_a_full_disk_only_prevents_the_file(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = answer(folder, keep_packed=False)
    monkeypatch.setattr(
        kv_file.zlib, "crc32", lambda *data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
    )
    found, _ = answer(folder)
    assert found.ids == expected.ids
    assert not kept(cache)
    assert [path.name for path in the_entry(cache).iterdir() if "kv" in path.name] == []


def test_clearing_the_cache_while_a_model_runs_is_harmless(
    folder: Path, cache: WeightCache
) -> None:
    with load(folder) as model:
        expected = model.generate(model.prompt("山は?"), PARAMS).ids
        cache.clear()
        assert model.generate(model.prompt("山は?"), PARAMS).ids == expected
        assert not cache.entries()


def test_without_a_weight_cache_nothing_is_stored(folder: Path, cache: WeightCache) -> None:
    first, second = (answer(folder, keep_packed=False)[0] for _ in range(2))
    assert (first.ids, second.timings.reused_tokens) == (second.ids, 0)
    assert not cache.entries()


def test_read_ahead_stores_what_an_answer_would(folder: Path, cache: WeightCache) -> None:
    """With a role after the prefix, so that the prefix does not end a chunk by itself."""
    with load(folder) as model:
        Conversation(model).reply("山は?", PARAMS)
    (path,) = kept(cache)
    expected = path.read_bytes()
    path.unlink()
    with load(folder) as model:
        chat = Conversation(model, "短く答えてください。")
        assert chat.read_ahead() == len(model.prompts.before_message(chat.role, []))
    assert path.read_bytes() == expected


def test_values_from_a_saved_conversation_are_not_stored(
    folder: Path, cache: WeightCache, tmp_path: Path
) -> None:
    """It may come from another CPU, or from anybody."""
    with load(folder) as model:
        chat = Conversation(model, params=PARAMS)
        chat.reply("山は?")
        chat.save(tmp_path / "saved.json")
        for path in kept(cache):
            path.unlink()
        other = Conversation(model, params=PARAMS)
        other.load(tmp_path / "saved.json")
        assert other.reply("川は?").timings.reused_tokens > 0
    assert not kept(cache)


def test_remains_of_a_killed_process_are_replaced(folder: Path, cache: WeightCache) -> None:
    answer(folder)
    (path,) = kept(cache)
    left = path.rename(path.with_name(path.name + ".partial"))
    assert answer(folder)[0].timings.reused_tokens == 0
    assert kept(cache) == [path]
    assert not left.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_folder_that_others_can_write_to_is_not_used(folder: Path, cache: WeightCache) -> None:
    answer(folder)
    cache.folder.chmod(0o777)
    assert answer(folder)[0].timings.reused_tokens == 0


def test_the_time_to_the_first_token_includes_loading_the_file(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(folder)
    read = prompt_cache.read_kv

    def slow(*args: Any) -> Any:
        time.sleep(0.2)
        return read(*args)

    monkeypatch.setattr(prompt_cache, "read_kv", slow)
    timings = answer(folder)[0].timings
    assert timings.reused_tokens > 0
    assert timings.time_to_first_token > 0.2


def test_a_file_with_other_ids_is_rewritten(folder: Path, cache: WeightCache) -> None:
    """As written by a version with another template."""
    answer(folder)
    (path,) = kept(cache)
    with load(folder) as model:
        held = model.decoder.new_cache()
        assert isinstance(held, KVCache)
        model.decoder.prefill(held, list(range(10, 30)))
        path.unlink()
        kv_file.write_kv(path, held, 20, model.manifest.bundle_id)
    assert answer(folder)[0].timings.reused_tokens == 0
    assert answer(folder)[0].timings.reused_tokens > 0


def test_short_prefixes_are_not_stored(tmp_path: Path) -> None:
    few, many = list(range(7)), list(range(100, 108))
    found = PromptCache(tmp_path, "bundle", [few, many])
    empty = KVCache.__new__(KVCache)
    empty.ids, empty.dtype = [[]], np.dtype(np.float32)
    assert found.load(empty, [*few, 9]) == 0
    assert found.load(empty, many) == 0  # at least one id is computed after it
    assert found.load(empty, [*many, 9]) == 8
