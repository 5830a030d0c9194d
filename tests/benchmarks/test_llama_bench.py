"""llama-bench's JSON lines from invented samples."""

from __future__ import annotations

import json

import pytest

from issun.benchmarks.llama_bench import jsonl
from tests.benchmarks.test_results import engine, made_up

# The fields of llama-bench's own JSON lines (llama.cpp's tools/llama-bench/README.md, 2026-11).
FIELDS = """
build_commit build_number cpu_info gpu_info backends model_filename model_type model_size
model_n_params n_batch n_ubatch n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers
n_cpu_moe split_mode main_gpu no_kv_offload flash_attn devices tensor_split tensor_buft_overrides
use_mmap use_direct_io embeddings no_op_offload no_host fit_target fit_min_ctx n_prompt n_gen
n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts
"""


def test_lines_by_hand() -> None:
    """Prefill twice, 2 and 4 s; twice 2 tokens, 0.25 + 0.75 s and 1.5 + 0.5 s."""
    measured = engine(
        versions={"onnxruntime": "1.32.0"},
        samples={
            "load": [1.0],
            "cold-512": [9.0],
            "prefill-512": [2.0, 4.0],
            "decode-128": [0.25, 0.75, 1.5, 0.5],
        },
        weight_bytes=7,
        kv_cache="int8",
        chunk=128,
    )
    results = made_up(measured)
    results.new_tokens = 2
    prefill, decode = map(json.loads, jsonl(results).splitlines())
    assert set(prefill) == set(FIELDS.split()) == set(decode)
    assert (prefill["n_prompt"], prefill["n_gen"], prefill["n_depth"]) == (512, 0, 0)
    assert prefill["samples_ns"] == [2 * 10**9, 4 * 10**9]
    assert prefill["samples_ts"] == [256, 128]
    assert (prefill["avg_ns"], prefill["avg_ts"]) == (3 * 10**9, 192)
    assert prefill["stddev_ns"] == round(2**0.5 * 10**9)
    assert prefill["stddev_ts"] == pytest.approx(64 * 2**0.5)
    assert (decode["n_prompt"], decode["n_gen"], decode["n_depth"]) == (0, 2, 128)
    assert decode["samples_ns"] == [10**9, 2 * 10**9]
    assert decode["samples_ts"] == [2, 1]
    assert decode["test_time"] == "2026-01-02T03:04:05Z"
    assert (decode["type_k"], decode["n_batch"], decode["n_threads"]) == ("i8", 128, 2)
    assert (decode["backends"], decode["model_size"]) == ("onnxruntime 1.32.0", 7)


def test_one_sample_and_results_without_a_number_of_tokens() -> None:
    """Every token of an older file is an answer of its own."""
    (line,) = map(json.loads, jsonl(made_up(engine(samples={"decode-0": [0.5]}))).splitlines())
    assert (line["n_gen"], line["stddev_ns"], line["stddev_ts"]) == (1, 0, 0)
    assert line["samples_ts"] == [2]
    assert jsonl(made_up(engine(status="crashed"))) == ""
