"""What one more row costs in a decoding step, which decides how many tokens a draft may have.

The cost depends on kernels, memory bandwidth and threads. It is measured at the first load with
packed weights and stored next to them; bundles whose weights are not cached use constants.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.errors import IssunError
from issun.runtime.weights.session import integer_matmul_saturates, rounds_activations

# As a share of a one-row step, by precision: the 1.3 B shape on 2 x86 cores with fast memory, with
# fast integer kernels and without. A row costs less where memory is slow.
_COST = {"int8": 0.04, "int4": 0.24}
_COST_SLOW_KERNELS = {"int8": 0.18, "int4": 0.40}

_PAST, _ROWS = 16, 8  # tokens before the measured steps, and rows of the larger one
_SECONDS, _MIN_ROUNDS, _MAX_ROUNDS = 0.3, 3, 10
_LOWEST, _HIGHEST = 2.0**-7, 2.0  # anything outside is noise


def row_cost(decoder: IssunDecoder, precision: str, entry: Path | None) -> float | None:
    """Return the cost of one more row as a share of a one-row step; None if drafts do not pay off.

    `entry` is the folder of the packed weights, where a measured cost is stored.
    """
    slow = integer_matmul_saturates() or not rounds_activations()
    known = (_COST_SLOW_KERNELS if slow else _COST).get(precision)
    if known is None or entry is None:
        return known
    threads = decoder.session.get_session_options().intra_op_num_threads
    path = entry / f"row-cost-{decoder.kv_cache}-{threads}.json"
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        stored = msgspec.json.decode(path.read_bytes(), type=float)
        if _LOWEST <= stored <= _HIGHEST:
            return stored
    try:
        cost = measure_row_cost(decoder)
    except IssunError:  # out of memory: the first answer will report it
        return known
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):  # a read-only folder
        partial.write_bytes(msgspec.json.encode(cost))
        partial.replace(path)
    return cost


def measure_row_cost(decoder: IssunDecoder) -> float:
    """Measure steps of one row and of several in turns, at least three times each."""
    with closing(decoder.new_cache(positions=_PAST + _ROWS)) as cache:
        decoder.forward(cache, [[0] * _PAST], [])
        fastest = dict.fromkeys((1, _ROWS), float("inf"))
        end = time.perf_counter() + _SECONDS
        for number in range(_MAX_ROUNDS + 1):  # the first round only warms up
            for rows in fastest:
                start = time.perf_counter()
                decoder.forward(cache, [[0] * rows], range(rows))
                if number:  # other programs only make steps slower
                    fastest[rows] = min(fastest[rows], time.perf_counter() - start)
                cache.rewind(_PAST)
            if number >= _MIN_ROUNDS and time.perf_counter() > end:
                break
    cost = min(max((fastest[_ROWS] / fastest[1] - 1) / (_ROWS - 1), _LOWEST), _HIGHEST)
    # On a coarse grid, so that measurements on one machine agree, and drafts with them.
    return math.exp2(round(2 * math.log2(cost)) / 2)
