"""Running out of memory, in a separate process with a limit."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap

import pytest

from issun.runtime import OutOfMemoryError
from issun.runtime.weights.memory_left import memory_for

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the limit of a process's memory is Linux's"
)

SCRIPT = """
import re
import resource
from pathlib import Path
from issun.runtime import Conversation, Model, OutOfMemoryError, SamplingParams

def limit(room):
    size = re.search(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    resource.setrlimit(resource.RLIMIT_AS, (int(size[1]) * 1024 + room, resource.RLIM_INFINITY))

greedy = SamplingParams(temperature=0, max_new_tokens=8)
long = "日本で一番高い山は富士山です。" * 20
with Model.load(threads=1) as model:
    chat = Conversation(model, params=greedy)
    chat.reply("日本で一番高い山は?")
    limit(100_000)
    try:
        if {what!r} == "prefill":
            chat.reply(long)
        else:
            Conversation(model)
    except OutOfMemoryError as error:
        print(error)
    else:
        print("no error")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    assert len(chat.turns) == 1
    again = chat.reply(long)
    fresh = Conversation(model, params=greedy)
    fresh.turns += chat.turns[:1]
    assert again.ids == fresh.reply(long).ids
"""


@linux
@pytest.mark.parametrize("what", ["prefill", "cache"])
def test_an_error_and_then_the_same_answer(what: str) -> None:
    script = textwrap.dedent(SCRIPT).replace("{what!r}", repr(what))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("There is not enough memory for ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 9"),
        Exception("Status Message: std::bad_alloc"),
    ],
    ids=str,
)
def test_all_out_of_memory_errors_are_recognized(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match="for 7 more tokens"), memory_for(7):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError(errno.EIO, "x"), ValueError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)), memory_for(7):
        raise error
