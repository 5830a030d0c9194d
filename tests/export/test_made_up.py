"""A family is added with one file and one line: its checkpoint is exported, opened and run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.benchmarks.divergence import mean_kl
from issun.benchmarks.small_tokenizers import SPECIAL
from issun.export import CheckpointError, ExportOptions, export
from issun.export.models import FAMILIES
from issun.runtime import Model, SamplingParams
from tests.checkpoints import Array, save_weights
from tests.export import made_up

CONFIG: dict[str, Any] = {
    "model_type": "made_up",
    "architectures": ["MadeUpForCausalLM"],
    "dim": 48,
    "heads": 4,
    "key_heads": 2,
    "head_width": 20,
    "depth": 2,
    "inner": 72,
    "vocabulary": 512,
    "max_position_embeddings": 128,
    "base": 500.0,
    "rotating": 0.4,
}
WIDTH, HEADS, KEY_HEADS, HEAD, ROTATING = 48, 4, 2, 20, 8
IDS = np.random.RandomState(3).randint(0, 512, 90).tolist()


@pytest.fixture
def weights() -> dict[str, Array]:
    """All tensors, and a buffer that is none of them."""
    random = np.random.RandomState(0)
    linears = {"query": (80, 48), "key": (40, 48), "value": (40, 48), "output": (48, 80)}
    shapes: dict[str, tuple[int, ...]] = {"decoder.tokens.weight": (512, 48)}
    shapes |= {"to_logits.weight": (512, 48)}
    norms = ["decoder.last_norm"]
    for at in ("decoder.blocks.0", "decoder.blocks.1"):
        norms += [f"{at}.before_attention", f"{at}.before_mlp"]
        shapes |= {f"{at}.attention.{name}.weight": shape for name, shape in linears.items()}
        for name, shape in {"gate": (72, 48), "widen": (72, 48), "narrow": (48, 72)}.items():
            shapes |= {f"{at}.mlp.{name}.weight": shape, f"{at}.mlp.{name}.bias": shape[:1]}
        shapes[f"{at}.attention.mask"] = (3, 3)
    for norm in norms:
        shapes |= {f"{norm}.weight": (48,), f"{norm}.bias": (48,)}
    found = {name: 0.2 * random.randn(*shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: x + ("norm.weight" in name or "before" in name) for name, x in found.items()}


@pytest.fixture
def folder(
    weights: dict[str, Array], spiece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A checkpoint of the family, which is registered."""
    monkeypatch.setitem(FAMILIES, "made_up", made_up.MADE_UP)  # the one line
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL), encoding="utf-8")
    shutil.copyfile(spiece, folder / "spiece.model")
    save_weights(folder, weights)
    return folder


# The network, written as its authors would


def norm(x: Array, weights: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    result: Array = normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return result


def rotated(x: Array) -> Array:
    """x (position, head, channel): channels 0 to 3 rotate with 4 to 7, the rest do not."""
    angles = np.arange(len(x))[:, None] * 500.0 ** (-np.arange(0, ROTATING, 2) / ROTATING)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b, rest = x[..., :4], x[..., 4:8], x[..., 8:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def attention(x: Array, weights: dict[str, Array], at: str) -> Array:
    count = len(x)
    query, key, value = (
        (x @ weights[f"{at}.{name}.weight"].T).reshape(count, -1, HEAD)
        for name in ("query", "key", "value")
    )
    query, key = rotated(query), rotated(key)
    later = np.triu(np.ones((count, count), bool), 1)
    heads = []
    for head in range(HEADS):
        shared = head // (HEADS // KEY_HEADS)
        scores = np.where(later, -np.inf, query[:, head] @ key[:, shared].T / HEAD)
        chances = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heads.append(chances / chances.sum(axis=-1, keepdims=True) @ value[:, shared])
    result: Array = np.concatenate(heads, axis=-1) @ weights[f"{at}.output.weight"].T
    return result


def logits_of(weights: dict[str, Array], ids: list[int]) -> Array:
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    x = weights["decoder.tokens.weight"][ids]
    for at in ("decoder.blocks.0", "decoder.blocks.1"):
        x = x + attention(norm(x, weights, f"{at}.before_attention"), weights, f"{at}.attention")
        y = norm(x, weights, f"{at}.before_mlp")
        gate, up = (
            y @ weights[f"{at}.mlp.{name}.weight"].T + weights[f"{at}.mlp.{name}.bias"]
            for name in ("gate", "widen")
        )
        inner = gate / (1 + np.exp(-gate)) * up
        x = x + inner @ weights[f"{at}.mlp.narrow.weight"].T + weights[f"{at}.mlp.narrow.bias"]
    result: Array = norm(x, weights, "decoder.last_norm") @ weights["to_logits.weight"].T
    return result


def test_float32_logits_are_those_of_the_network(
    folder: Path, weights: dict[str, Array], tmp_path: Path
) -> None:
    expected = logits_of(weights, IDS)
    assert expected.std() > 1
    manifest = export(folder, tmp_path / "bundle", ExportOptions(precision="float32"))
    assert (manifest.architecture.family, manifest.architecture.n_kv_head) == ("made_up", 2)
    with Model.load(tmp_path / "bundle") as model:
        assert np.abs(model.score(IDS) - expected).max() <= 1e-4


@pytest.mark.sampled
@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(precision="int8", kv_cache="int8"),
        ExportOptions(precision="int4"),
        ExportOptions(max_kl=0.05),
    ],
    ids=["int8", "gptq", "max_kl"],
)
def test_every_precision_runs(
    folder: Path, weights: dict[str, Array], tmp_path: Path, options: ExportOptions
) -> None:
    export(folder, tmp_path / "bundle", options)
    with Model.load(tmp_path / "bundle") as model:
        assert 1e-6 < mean_kl(logits_of(weights, IDS), model.score(IDS)) <= 0.05
        params = SamplingParams(temperature=0, max_new_tokens=8, min_new_tokens=8)
        assert len(model.generate("こんにちは", params).ids) == 8


def test_its_fields_and_tensors_are_checked(folder: Path, tmp_path: Path) -> None:
    changed = json.dumps(CONFIG | {"inner": 80})
    (folder / "config.json").write_text(changed, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"blocks\.0\.mlp\.gate\.weight has shape \[72, 48\]"):
        export(folder, tmp_path / "bundle")


def test_it_takes_one_file_of_at_most_80_lines() -> None:
    assert len(Path(made_up.__file__).read_text(encoding="utf-8").splitlines()) <= 80
