"""Slots: active ones come first, and finished sequences can be reused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.runtime.decoding.kv_cache import Cache
from issun.runtime.decoding.slots import Slots
from issun.runtime.errors import OutOfMemoryError


class Copying(Cache):
    """A cache of ids only, which counts the tokens copied."""

    copied = 0
    full = False  # out of memory

    def copy(self, source: Cache, source_slot: int, slot: int, length: int | None = None) -> None:
        if self.full:
            raise OutOfMemoryError("There is not enough memory.")
        self.ids[slot] = source.ids[source_slot][:length]
        self.copied += len(self.ids[slot])

    def swap(self, slot: int, other: int) -> None:
        if self.full:
            raise OutOfMemoryError("There is not enough memory.")
        self.ids[slot], self.ids[other] = self.ids[other], self.ids[slot]
        self.copied += len(self.ids[slot]) + len(self.ids[other])

    def move(self, source: int, slot: int) -> None:
        self.ids[slot], self.ids[source] = self.ids[source], []
        self.copied += len(self.ids[slot])


def make(count: int) -> Slots:
    cache: Any = Copying(count)
    return Slots(cache)


def read(slots: Slots, prompt: list[int]) -> int:
    """Join and prefill the whole prompt; returns how many ids were reused."""
    known = slots.join(prompt)
    held = slots.cache.ids[slots.active]
    assert held == prompt[:known]
    held.extend(prompt[known:])
    slots.activate()
    return known


def test_a_continued_conversation_is_found_in_its_slot() -> None:
    slots = make(3)
    assert read(slots, [1, 2, 3, 4]) == 0
    slots.cache.ids[0] += [5, 6]
    slots.remove(0)
    assert read(slots, [1, 2, 3, 4, 5, 6, 7, 8]) == 6
    assert slots.cache.copied == 0  # type: ignore[attr-defined]


def test_without_memory_for_a_copy_none_can_join_and_all_can_be_removed() -> None:
    slots = make(3)
    for prompt in ([1, 2, 3, 4], [5, 6, 7, 8]):
        read(slots, prompt)
    slots.cache.full = True  # type: ignore[attr-defined]
    with pytest.raises(OutOfMemoryError):
        slots.join([1, 2, 3, 9])
    assert (slots.active, slots.prefilling) == (2, 0)
    slots.remove(0)  # its content is not preserved, and the last one moves to its slot
    assert slots.cache.ids == [[5, 6, 7, 8], [], []]
    slots.remove(0)
    assert read(slots, [5, 6, 7, 8, 9, 9]) == 4


def test_at_least_two_rows_are_computed() -> None:
    slots = make(2)
    read(slots, [1, 2, 3, 4])
    slots.remove(0)
    assert read(slots, [1, 2, 3, 4]) == 2
    slots.remove(0)
    assert read(slots, [1]) == 0


def test_a_prefix_is_copied_from_an_active_sequence() -> None:
    slots = make(2)
    read(slots, [1, 2, 3, 4])
    assert read(slots, [1, 2, 3, 9, 9]) == 3
    assert slots.cache.ids == [[1, 2, 3, 4], [1, 2, 3, 9, 9]]


def test_nothing_is_reused_without_reuse() -> None:
    slots = make(2)
    read(slots, [1, 2, 3, 4])
    slots.remove(0)
    assert slots.join([1, 2, 3, 4, 5], reuse=False) == 0


def test_the_least_recently_used_goes_first() -> None:
    slots = make(3)
    for prompt in ([1] * 5, [2] * 5, [3] * 5):
        read(slots, prompt)
        slots.remove(0)
    assert read(slots, [1] * 5 + [7, 7]) == 5
    slots.remove(0)
    read(slots, [4] * 5)  # 2 is the least recently used
    slots.remove(0)
    held = {ids[0] for ids in slots.cache.ids if ids}
    assert 2 not in held
    assert {1, 4} <= held


def talk(slots: Slots, number: int, turns: int) -> int:
    """Run one turn of a conversation whose prompts begin with a role; returns the ids reused."""
    role, history = [0] * 20, [number] * 10 * turns
    reused = read(slots, [*role, *history])
    slots.cache.ids[0] += [8, 9]  # an answer that the next prompt spells differently
    slots.remove(0)
    return reused


def turn(slots: Slots, number: int, turns: int) -> int:
    """As `talk`, for a template that renders the last message differently from earlier ones."""
    role, history = [0] * 20, [number] * 10 * (turns - 1)
    prompt, texts = [*role, *history, 7, 7, 7], [str(number)] * turns
    reused = slots.join(prompt, texts)
    slots.cache.ids[0].extend([*prompt[reused:], 8, 9])
    slots.activate()
    slots.remove(0)
    return reused


@pytest.mark.parametrize(("run", "lost"), [(talk, 0), (turn, 10)])
@pytest.mark.parametrize("conversations", [1, 2, 3, 4])
def test_alternating_conversations_find_what_they_computed(
    run: Callable[[Slots, int, int], int], lost: int, conversations: int
) -> None:
    slots = make(4)
    for turns in range(1, 5):
        for number in range(1, conversations + 1):
            reused = run(slots, number, turns)
            assert turns == 1 or reused == 20 + 10 * (turns - 1) - lost


def test_a_continued_conversation_leaves_no_copies() -> None:
    slots = make(4)
    for turns in range(1, 5):
        turn(slots, 1, turns)
    assert slots.cache.copied == 0  # type: ignore[attr-defined]
    assert slots.cache.ids[1:] == [[], [], []]


def test_a_shared_beginning_evicts_the_least_recently_used_only() -> None:
    slots = make(3)
    for number in (1, 2, 3, 1, 4):  # 4 takes the slot of 2
        talk(slots, number, 2)
    assert talk(slots, 3, 3) == talk(slots, 1, 3) == talk(slots, 4, 3) == 40
    assert talk(slots, 2, 3) == 20


def test_a_finished_sequence_is_kept_while_all_slots_are_active() -> None:
    slots = make(3)
    for prompt in ([1] * 4, [2] * 4, [3] * 4):
        read(slots, prompt)
    slots.remove(0)
    assert slots.cache.ids == [[3] * 4, [2] * 4, [1] * 4]
    assert read(slots, [1] * 4 + [5, 5]) == 4


def test_a_prefill_moves_up_when_an_active_sequence_is_removed() -> None:
    slots = make(3)
    read(slots, [1] * 4)
    read(slots, [2] * 4)
    slots.join([3] * 6)
    slots.cache.ids[2].extend([3, 3])
    slots.remove(0)
    assert slots.active == 1
    assert slots.cache.ids[:2] == [[2] * 4, [3, 3]]


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.sampled_from(["join", "grow", "leave", "drop"]), st.integers(0, 9)),
        max_size=60,
    ),
)
def test_every_active_slot_holds_its_own_sequence(count: int, steps: list[tuple[str, int]]) -> None:
    slots = make(count)
    own: list[list[int]] = []  # what each active slot must hold
    reading: list[list[int]] = []  # and each one in prefill
    for kind, number in steps:
        if kind == "join" and not slots.full:
            prompt = [number % 3, number % 2, *([number] * (number + 1))]
            place = len(own) + len(reading)
            expected = slots.reusable(prompt)
            known = slots.join(prompt)
            assert known == expected <= max(0, len(prompt) - 2)
            assert slots.cache.ids[place] == prompt[:known]
            slots.cache.ids[place].extend(prompt[known:])
            reading.append(prompt)
        elif kind == "grow":
            for place, ids in enumerate(own):
                ids.append(number)
                slots.cache.ids[place].append(number)
            if reading:
                slots.activate()
                own += reading
                reading = []
        elif kind == "leave" and own and len(reading) < 2:
            place = number % len(own)
            slots.remove(place)
            last = own.pop()
            if place < len(own):
                own[place] = last
        elif kind == "drop" and reading:
            slots.drop_prefills()
            reading = []
        assert slots.active == len(own)
        assert slots.cache.ids[: len(own) + len(reading)] == own + reading
