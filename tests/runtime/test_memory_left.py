"""How much memory is left on a simulated system, and what happens to a prompt without enough."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from issun.benchmarks.limited import memory_cgroup
from issun.runtime import Conversation, Model, OutOfMemoryError, SamplingParams
from issun.runtime.decoding import kv_cache
from issun.runtime.weights.memory_left import check_memory, memory_left

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is left")
PAGES = 2 * 7 * 8 * 4096  # a page of keys and of values for each head of the embedded model
AT_ONCE = 2 << 20
WORKING = 4 * (4 * 256 + 2 * 3 * 256 + 4 * 1024)  # bytes of activations per token
GREEDY = SamplingParams(temperature=0, max_new_tokens=8)
LONG = "日本で一番高い山は富士山です。" * 20


KiB = 1 << 10
V1, V2 = "sys/fs/cgroup/memory/", "sys/fs/cgroup/"


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root with 5,000 KiB available, 1,000 KiB of swap, and these files."""
    meminfo = "MemTotal:  9000 kB\nMemAvailable:  5000 kB\nSwapFree:  1000 kB\n"
    for name, text in {"proc/meminfo": meminfo, "proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@linux
@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("", {}, 6000),
        ("0::/a/b\n", {f"{V2}a/b/memory.max": "max\n", f"{V2}a/b/memory.current": "1\n"}, 6000),
        (
            "0::/a/b\n",  # the parent group leaves less; its file pages can be reclaimed
            {
                f"{V2}a/b/memory.max": f"{4000 * KiB}\n",
                f"{V2}a/b/memory.current": f"{1000 * KiB}\n",
                f"{V2}a/memory.max": f"{3000 * KiB}\n",
                f"{V2}a/memory.current": f"{2500 * KiB}\n",
                f"{V2}a/memory.stat": f"anon 7\ninactive_file {200 * KiB}\nactive_file 102400\n",
            },
            1000 + 3000 - 2500 + 200 + 100,
        ),
        (
            "4:cpu:/x\n3:memory:/c\n0::/\n",
            {
                f"{V1}c/memory.limit_in_bytes": f"{2000 * KiB}\n",
                f"{V1}c/memory.usage_in_bytes": f"{1900 * KiB}\n",
                f"{V1}c/memory.stat": f"active_file 9\ntotal_active_file {50 * KiB}\n",
                f"{V1}memory.limit_in_bytes": "9223372036854771712\n",
                f"{V1}memory.usage_in_bytes": "5\n",
            },
            1000 + 2000 - 1900 + 50,
        ),
        (
            "0::/a\n",  # the group may use no swap, or 10 KiB of it
            {
                f"{V2}a/memory.max": f"{700 * KiB}\n",
                f"{V2}a/memory.current": "0\n",
                f"{V2}a/memory.stat": f"slab_reclaimable {3 * KiB}\nslab_unreclaimable 9\n",
                f"{V2}a/memory.swap.max": f"{30 * KiB}\n",
                f"{V2}a/memory.swap.current": f"{20 * KiB}\n",
            },
            700 + 3 + 10,
        ),
        (
            "4:memory,hugetlb:/c\nnonsense\n",  # its combined limit leaves 5 KiB of swap
            {
                f"{V1}c/memory.limit_in_bytes": f"{2000 * KiB}\n",
                f"{V1}c/memory.usage_in_bytes": f"{1900 * KiB}\n",
                f"{V1}c/memory.memsw.limit_in_bytes": f"{2010 * KiB}\n",
                f"{V1}c/memory.memsw.usage_in_bytes": f"{1905 * KiB}\n",
            },
            100 + 5,
        ),
        (
            "0::/not/seen/from/here\n",  # in a container, its own group is mounted as the root
            {f"{V2}memory.max": f"{700 * KiB}\n", f"{V2}memory.current": "0\n"},
            1000 + 700,
        ),
    ],
    ids=["no groups", "no limit", "around", "version 1", "swap", "swap 1", "container"],
)
def test_the_smallest_limit_of_machine_and_groups_counts(
    tmp_path: Path, groups: str, files: dict[str, str], left: int
) -> None:
    assert memory_left(system(tmp_path, groups, files)) == left * KiB


def test_a_system_that_reports_nothing(tmp_path: Path) -> None:
    assert memory_left(tmp_path) is None


def test_available_memory_can_be_used() -> None:
    check_memory(1 << 20)


@linux
def test_more_than_available_memory_is_refused() -> None:
    with pytest.raises(MemoryError):
        check_memory(1 << 62)


@linux
def test_a_prompt_without_memory_is_refused_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing_left(size: int) -> None:
        raise MemoryError(size)

    with Model.load(threads=1) as model:
        chat = Conversation(model, params=GREEDY)
        chat.reply("日本で一番高い山は?")
        with monkeypatch.context() as short:
            short.setattr(kv_cache, "check_memory", nothing_left)
            with pytest.raises(OutOfMemoryError, match="There is not enough memory for"):
                chat.reply(LONG)
        assert len(chat.turns) == 1
        fresh = Conversation(model, params=GREEDY)
        fresh.turns += chat.turns
        assert chat.reply(LONG).ids == fresh.reply(LONG).ids


@linux
def test_memory_of_a_failed_run_is_reserved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(kv_cache, "check_memory", asked.append)
    with Model.load(threads=1) as model:
        cache = model.decoder.new_cache()
        with monkeypatch.context() as broken:
            broken.setattr(model.decoder, "session", None)
            with pytest.raises(AttributeError):
                model.decoder.prefill(cache, range(10, 210))
        model.decoder.prefill(cache, range(10, 210))
        assert asked == [asked[0], asked[0], AT_ONCE]


@linux
def test_allocated_memory_is_not_reserved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(kv_cache, "check_memory", asked.append)
    with Model.load(threads=1) as model:
        cache = model.decoder.new_cache(2)
        ids = range(10, 210)
        model.decoder.prefill(cache, ids)
        # The second chunk has fewer rows, and 72 tokens need less than the 2 MiB reserved.
        assert asked == [(4 + 1) * PAGES + 128 * WORKING, AT_ONCE]
        cache.rewind(0)
        model.decoder.prefill(cache, ids)
        assert len(asked) == 2
        asked.clear()
        cache.rewind(0)
        cache.shrink()
        model.decoder.prefill(cache, range(10, 410))  # three chunks of 128 rows, and 16 rows
        assert asked == [(4 + 1) * PAGES, *[AT_ONCE] * 3]
        assert cache.touched == [400, 0]
        asked.clear()
        model.decoder.forward(cache, [[9], range(10, 210)], [])
        assert asked == [(19 - 13 + 7 + 1) * PAGES + 272 * WORKING]


@linux
def test_an_answer_reserves_what_its_steps_need(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(kv_cache, "check_memory", asked.append)
    with Model.load(threads=1) as model:
        cache = model.decoder.new_cache()
        for token in range(10, 410):
            model.decoder.step(cache, token)
        assert set(asked) == {AT_ONCE}
        # Steps of whole pages: what one reservation leaves below a page is not used.
        assert len(asked) == math.ceil(math.ceil(cache.nbytes / PAGES) / (AT_ONCE // PAGES))


def run_within(limit: int, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that moves itself into the group whose folder is its first argument."""
    with memory_cgroup(limit) as group:
        if group is None:
            pytest.skip("no memory cgroup can be made here")
        return subprocess.run(
            [sys.executable, "-c", script, str(group), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


SCRIPT = """
import os, sys
from pathlib import Path
from issun.runtime.decoding import kv_cache
from issun.runtime import Conversation, Model, OutOfMemoryError, SamplingParams

with Model.load(threads=1) as model:
    chat = Conversation(model, params=SamplingParams(temperature=0, max_new_tokens=8))
    chat.reply("日本で一番高い山は?")
    (Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
    if sys.argv[3] == "unasked":
        kv_cache.check_memory = lambda size: None
    for _ in range(2):
        try:
            print(len(chat.reply(sys.argv[2]).ids))
        except OutOfMemoryError as error:
            print(error)
"""
NOT_ENOUGH = "There is not enough memory for"
A_CHUNK = f"{NOT_ENOUGH} 128 more tokens"


@linux
@pytest.mark.parametrize(
    ("limit", "how", "code", "said"),
    [
        (3 << 20, "asked", 0, A_CHUNK),
        (2 << 20, "unasked", -9, ""),
        (64 << 20, "asked", 0, "8\n8\n"),
    ],
)
def test_a_prompt_beyond_its_group_s_limit_is_refused_not_killed(
    limit: int, how: str, code: int, said: str
) -> None:
    done = run_within(limit, SCRIPT, LONG, how)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(said)


GROWING = """
import os, sys
from pathlib import Path
from issun.runtime import Model, OutOfMemoryError, SamplingParams

def params(tokens):
    return SamplingParams(temperature=0, max_new_tokens=tokens, min_new_tokens=tokens)

with Model.load(threads=1) as model:
    model.generate_many(["日本"] * 2, params(2))
    (Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
    try:
        if sys.argv[2] == "step":
            print(len(model.generate(list(range(10, 40)), params(400)).ids))
        elif sys.argv[2] == "short":
            prompts = [[*range(10, 40), last] for last in range(10, 26)]
            print(len(model.generate_many(prompts, params(300), slots=16)))
        else:
            prompts = [[*range(10, 310), last] for last in range(10, 26)]
            print(len(model.generate_many(prompts, params(2), slots=16)))
    except OutOfMemoryError as error:
        print(error)
"""


@pytest.mark.sampled
@linux
@pytest.mark.parametrize(
    ("what", "limit", "said"),
    [
        ("step", 4 << 20, NOT_ENOUGH),  # it grows by 5 MB
        ("step", 64 << 20, "400\n"),
        ("together", 16 << 20, NOT_ENOUGH),  # by 59 MB
        ("together", 256 << 20, "16\n"),
        ("short", 10 << 20, NOT_ENOUGH),  # each slot starts on a page of its own
    ],
)
def test_growth_in_an_answer_or_by_a_copy_is_refused_not_killed(
    what: str, limit: int, said: str
) -> None:
    done = run_within(limit, GROWING, what)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(said)
