"""Models with adapters: choosing one per call, batches that mix them, and damaged files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from issun.runtime import (
    Adapter,
    AdapterError,
    Conversation,
    Model,
    ParameterError,
    SamplingParams,
)
from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.decoding.slots import Slots
from issun.runtime.saved import kv_path
from issun.runtime.weights.adapter_file import AdapterFile, write_adapter
from issun.runtime.weights.weight_cache import WeightCache
from tests.adapters import random_adapter

GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
NAMES = [None, "first", "second", "third"]
Made = Callable[..., tuple[Path, list[Path]]]
Load = Callable[..., Model]


@pytest.fixture(scope="module")
def made(bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`made(precision, kv_cache)`: a bundle, and three adapters of other ranks and layers."""

    @cache
    def make(precision: str = "float32", kv_cache: str = "float32") -> tuple[Path, list[Path]]:
        folder = bundle("unscaled", precision, kv_cache=kv_cache)
        target = tmp_path_factory.mktemp("adapters")
        return folder, [
            random_adapter(folder, target / "first", seed=1),
            random_adapter(folder, target / "second", seed=2, rank=3, parts=["qkv"]),
            random_adapter(folder, target / "third.v1", seed=3, rank=17, parts=["up", "out"]),
        ]

    return make


@pytest.fixture(scope="module")
def load(made: Made) -> Iterator[Load]:
    """`load(precision, kv_cache)`: the model with its adapters."""
    models = []

    @cache
    def make(precision: str = "float32", kv_cache: str = "float32") -> Model:
        folder, files = made(precision, kv_cache)
        models.append(Model.load(folder, threads=1, adapters=files))
        return models[-1]

    yield make
    for model in models:
        model.close()


@pytest.fixture(scope="module")
def model(load: Load) -> Model:
    return load()


def ids_of(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(5, 512, count).tolist()


# Choosing an adapter


def test_each_adapter_changes_the_logits_in_its_own_way(model: Model) -> None:
    assert list(model.adapters) == NAMES[1:]
    found = [model.score(ids_of(9), adapter=name) for name in NAMES]
    for index, one in enumerate(found):
        assert all(np.abs(one - other).max() > 0.01 for other in found[:index])


def test_without_an_adapter_the_logits_are_those_of_the_bundle(model: Model, made: Made) -> None:
    with Model.load(made()[0], threads=1) as plain:
        assert not plain.adapters
        assert np.array_equal(plain.score(ids_of(9)), model.score(ids_of(9)))


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_a_weight_of_zero_changes_nothing(made: Made, precision: str) -> None:
    folder, files = made(precision)
    adapters = [Adapter(files[0], "none", 0.0), files[1]]
    with Model.load(folder, threads=1, adapters=adapters) as model:
        for ids in (ids_of(1), ids_of(40)):
            assert np.array_equal(model.score(ids, adapter="none"), model.score(ids))


def test_a_weight_scales_the_change(made: Made) -> None:
    folder, (file, *_) = made()
    adapters = [Adapter(file, f"x{weight}", weight) for weight in (1e-3, 2e-3)]
    with Model.load(folder, threads=1, adapters=adapters) as model:
        base = model.score(ids_of(9))
        one, two = (model.score(ids_of(9), adapter=f"x{weight}") - base for weight in (1e-3, 2e-3))
        assert np.abs(one).max() > 1e-3
        assert np.abs(two - 2 * one).max() < 0.05 * np.abs(one).max()


def test_an_adapter_gives_the_same_alone_and_beside_others(load: Load, made: Made) -> None:
    folder, files = made("int8", "int8")
    with Model.load(folder, threads=1, adapters=[Adapter(files[2], "x")]) as alone:
        for ids in (ids_of(1), ids_of(40)):
            beside = load("int8", "int8").score(ids, adapter="third")
            assert np.array_equal(alone.score(ids, adapter="x"), beside)


def test_an_unknown_name_is_refused_before_any_work(model: Model) -> None:
    known = re.escape("There is no adapter 'forth'; loaded are: first, second, third.")
    for call in (
        lambda: model.generate([7], adapter="forth"),
        lambda: model.score([7], adapter="forth"),
        lambda: model.generate_many([[7], [8]], adapter=["first", "forth"]),
        lambda: Conversation(model, adapter="forth"),
    ):
        with pytest.raises(ParameterError, match=known):
            call()
    with pytest.raises(ParameterError, match="2 prompts and 1 adapters"):
        model.generate_many([[7], [8]], adapter=["first"])
    model.check_free()


# Batches


@pytest.mark.parametrize(("precision", "kv_cache"), [("float32", "float32"), ("int8", "int8")])
def test_a_batch_of_several_adapters_gives_each_answer_as_alone(
    load: Load, precision: str, kv_cache: str
) -> None:
    model = load(precision, kv_cache)
    # The same prompts for all: a shared prefix must not come from another adapter.
    jobs = [(name, ids_of(length, length)) for length in (2, 40, 150) for name in NAMES]
    alone = [model.generate(ids, GREEDY, adapter=name).ids for name, ids in jobs]
    prompts, names = [ids for _, ids in jobs], [name for name, _ in jobs]
    for slots in (3, 12):
        answers = model.generate_many(prompts, GREEDY, adapter=names, slots=slots)
        assert [answer.ids for answer in answers] == alone
    one = model.generate_many(prompts[:4], GREEDY, adapter="second")
    assert one[0].ids == alone[2]


def test_a_slot_is_reused_by_its_own_adapter_only(model: Model) -> None:
    assert isinstance(model.decoder, IssunDecoder)
    slots = Slots(model.decoder.new_cache(3))
    prompt = ids_of(20)
    for name in ("first", None):
        assert slots.join(prompt, adapter=name) == 0
        model.decoder.forward(slots.cache, [prompt], [], first=slots.active)
        slots.activate()
    assert slots.cache.adapters[:2] == ["first", None]
    slots.remove(0)  # which moves the other sequence
    assert slots.cache.adapters[:2] == [None, "first"]
    assert slots.reusable(prompt, "first") == 18
    assert slots.reusable(prompt, "second") == 0
    assert slots.join(prompt, adapter="second") == 0
    assert slots.cache.adapters[1] == "second"
    assert slots.reusable(prompt, "first") == 18  # it was copied out of the way
    slots.cache.close()


# Conversations


def test_a_conversation_keeps_its_cache_and_its_adapter(model: Model) -> None:
    chat = Conversation(model, params=GREEDY, adapter="first")
    chat.reply("一寸")
    assert chat.reply("はい").timings.reused_tokens > 0
    again = Conversation(model, params=GREEDY, adapter="first")
    again.turns = chat.turns[:1]
    assert again.reply("はい").ids == chat.retry().finish().ids


def test_a_cache_is_not_used_by_another_adapter(model: Model) -> None:
    caches = model.new_cache()
    for name, reused in (("first", 0), ("first", 8), ("second", 0), (None, 0)):
        found = model.start(caches, ids_of(9), GREEDY, adapter=name).finish()
        assert found.timings.reused_tokens == reused
        assert found.ids == model.generate(ids_of(9), GREEDY, adapter=name).ids
    assert model.read(caches, ids_of(30), adapter="first") == 30


def test_saved_keys_and_values_are_of_one_adapter_with_one_weight(
    model: Model, made: Made, tmp_path: Path
) -> None:
    chat = Conversation(model, params=GREEDY, adapter="first")
    chat.reply("一寸")
    assert chat.save(tmp_path / "chat.json") > 0
    assert kv_path(tmp_path / "chat.json").exists()
    folder, (first, *_) = made()
    with Model.load(folder, threads=1, adapters=[Adapter(first, "first", 0.5)]) as weaker:
        for other, name, loads in (
            (model, "first", True),
            (model, "second", False),
            (model, None, False),
            (weaker, "first", False),
        ):
            loaded = Conversation(other, params=GREEDY, adapter=name)
            loaded.load(tmp_path / "chat.json")
            assert loaded.turns == chat.turns
            assert (loaded.reply("はい").timings.reused_tokens > 0) == loads


# Packed weights


def test_both_sessions_map_one_entry_of_packed_weights(
    cache: WeightCache, made: Made, load: Load
) -> None:
    folder, files = made("int8")
    with Model.load(folder, threads=1, adapters=files) as model:
        assert len(cache.entries()) == 1
        for name in NAMES:
            expected = load("int8").score(ids_of(20), adapter=name)
            assert np.array_equal(model.score(ids_of(20), adapter=name), expected)
        # The prompt cache has what the template's prefix gives without an adapter.
        prompt = model.prompt("一寸")
        alone = {name: load("int8").generate(prompt, GREEDY, adapter=name).ids for name in NAMES}
        for name in [*NAMES, *NAMES]:
            assert model.generate(prompt, GREEDY, adapter=name).ids == alone[name]


# Files


def damaged(path: Path, change: Callable[[bytes], bytes]) -> Path:
    target = path.with_name("damaged")
    target.write_bytes(change(path.read_bytes()))
    return target


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw[:-1], "damaged or was not copied completely"),
        (lambda raw: raw + b"\0", "damaged or was not copied completely"),
        (lambda raw: raw[:-5] + b"\1" + raw[-4:], "damaged or was not copied completely"),
        (lambda raw: raw[:100], "not an adapter that `issun adapter` wrote"),
        (lambda raw: b"", "not an adapter that `issun adapter` wrote"),
        (lambda raw: b"\x80" + raw, "not an adapter that `issun adapter` wrote"),
        (lambda raw: raw.replace(b'"rank":4', b'"rank":0', 1), "not an adapter"),
        (lambda raw: raw.replace(b'"format":1', b'"format":2', 1), "reads format 1"),
        (lambda raw: raw.replace(b'"bundle":"', b'"bundle":"0', 1), "made for another bundle"),
    ],
)
def test_a_damaged_file_is_refused(
    made: Made, change: Callable[[bytes], bytes], reason: str
) -> None:
    folder, (file, *_) = made()
    with pytest.raises(AdapterError, match=reason):
        Model.load(folder, threads=1, adapters=[damaged(file, change)])


def test_values_that_would_spoil_other_answers_are_refused(made: Made, tmp_path: Path) -> None:
    folder, (file, *_) = made()
    header = AdapterFile(file).header
    matrices = AdapterFile(file).read()
    matrices["h.0.qkv"][1][0, 0] = np.inf
    described = {"bundle": header.bundle, "source": "", "source_sha256": "", "scale": 1.0}
    write_adapter(tmp_path / "infinite", matrices, **described)
    with pytest.raises(AdapterError, match="infinite is damaged"):
        Model.load(folder, threads=1, adapters=[tmp_path / "infinite"])


def test_what_is_no_file_is_refused(made: Made, tmp_path: Path) -> None:
    folder, (file, *_) = made()
    with pytest.raises(AdapterError, match="cannot be read: No such file"):
        Model.load(folder, adapters=[tmp_path / "missing"])
    with pytest.raises(AdapterError, match="is a folder: `issun adapter BUNDLE"):
        Model.load(folder, adapters=[tmp_path])
    for single in (file, str(file), Adapter(file)):
        with pytest.raises(ParameterError, match="adapters is a single file: pass a list"):
            Model.load(folder, adapters=single)  # type: ignore[arg-type]
    other = made("int8")[0]
    with pytest.raises(AdapterError, match="another bundle"):
        Model.load(other, adapters=[file])
    with pytest.raises(ParameterError, match="two adapters named first"):
        Model.load(folder, adapters=[file, shutil.copy(file, tmp_path)])


@pytest.mark.parametrize(
    ("text", "name", "path", "weight"),
    [
        ("a1", "a1", "a1", 1),
        ("folder/a1.bin", "a1", "folder/a1.bin", 1),
        ("a1=0.5", "a1", "a1", 0.5),
        ("関西=a1", "関西", "a1", 1),
        ("x=a1=-2e-1", "x", "a1", -0.2),
        ("./d=x/a1", "a1", "./d=x/a1", 1),
        ("x=./a=b", "x", "./a=b", 1),
    ],
)
def test_the_command_line_writes_name_file_and_weight(
    text: str, name: str, path: str, weight: float
) -> None:
    assert Adapter.parse(text) == Adapter(path, name, weight)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "name is ''"), ("a b", "name is 'a b'"), ("a1=nan", "weight of the adapter a1 is nan")],
)
def test_names_and_weights_are_checked(text: str, reason: str) -> None:
    with pytest.raises(ParameterError, match=reason):
        Adapter.parse(text)


def test_a_weight_is_a_number() -> None:
    with pytest.raises(ParameterError, match="it must be a finite number"):
        Adapter("a1", weight="0.5")  # type: ignore[arg-type]
