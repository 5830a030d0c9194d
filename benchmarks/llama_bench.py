"""Writes results as llama-bench's JSON lines, for scripts that read those.

A prefill of N tokens becomes a line with `n_prompt` N (pp), and decoding after N tokens one with
`n_gen` and `n_depth` N (tg). Unlike llama-bench's, prefill includes the choice of the first token.
Source of the fields: tools/llama-bench of llama.cpp, 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

from issun.benchmarks.measured import EngineResult, Results, depths

_CPU_ONLY: dict[str, Any] = {  # what llama-bench writes about devices and its own threads
    **{"cpu_mask": "0x0", "cpu_strict": False, "poll": 0},
    **{"n_gpu_layers": 0, "n_cpu_moe": 0, "split_mode": "none", "main_gpu": 0},
    **{"no_kv_offload": False, "devices": "none", "tensor_split": "0.00"},
    **{"tensor_buft_overrides": "none", "embeddings": False, "no_op_offload": 0},
    **{"no_host": False, "fit_target": 0, "fit_min_ctx": 0},
}
_TYPES = {"float32": "f32", "float16": "f16", "int8": "i8"}  # ggml's names


def jsonl(results: Results) -> str:
    """One line for each measured prefill and decode test."""
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in _lines(results))


def _lines(results: Results) -> Iterator[dict[str, Any]]:
    # A sample of ours is a token, one of llama-bench's an answer.
    count = results.new_tokens or 1
    for engine in results.engines:
        for size in depths(engine, "prefill"):
            samples = engine.samples[f"prefill-{size}"]
            yield _line(results, engine, samples, n_prompt=size)
        for size in depths(engine, "decode"):
            tokens = engine.samples[f"decode-{size}"]
            answers = [sum(tokens[i : i + count]) for i in range(0, len(tokens), count)]
            yield _line(results, engine, answers, n_gen=count, n_depth=size)


def _line(
    results: Results,
    engine: EngineResult,
    seconds: Sequence[float],
    *,
    n_prompt: int = 0,
    n_gen: int = 0,
    n_depth: int = 0,
) -> dict[str, Any]:
    tokens = n_prompt or n_gen
    nanoseconds = [round(value * 1e9) for value in seconds]
    rates = [tokens / value for value in seconds]
    kv = _TYPES.get(engine.kv_cache, engine.kv_cache)
    package = next(iter(engine.versions.items()), (engine.name, ""))
    chunk = engine.chunk or n_prompt or 1
    return {
        "build_commit": results.commit,
        "build_number": 0,
        "cpu_info": results.machine.cpu,
        "gpu_info": "",
        "backends": " ".join(package).strip(),
        "model_filename": f"{results.checkpoint}/{engine.name}",
        "model_type": f"{engine.label} {results.parameters / 1e9:.2f}B",
        "model_size": engine.weight_bytes or engine.disk_bytes,
        "model_n_params": results.parameters,
        "n_batch": chunk,
        "n_ubatch": chunk,
        "n_threads": engine.threads,
        "type_k": kv,
        "type_v": kv,
        "flash_attn": -1,
        "use_mmap": True,
        "use_direct_io": False,
        **_CPU_ONLY,
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": n_depth,
        "test_time": datetime.fromisoformat(results.date)
        .astimezone(UTC)
        .strftime("%Y-%m-%dT%H:%M:%SZ"),
        "avg_ns": round(fmean(nanoseconds)),
        "stddev_ns": round(_deviation(nanoseconds)),
        "avg_ts": fmean(rates),
        "stddev_ts": _deviation(rates),
        "samples_ns": nanoseconds,
        "samples_ts": rates,
    }


def _deviation(values: Sequence[float]) -> float:
    """The sample standard deviation, 0 for one sample, as llama-bench has it."""
    return stdev(values) if len(values) > 1 else 0.0
