"""All faults of a checkpoint are reported at once, before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from issun.export import CheckpointError, ExportOptions, export
from issun.export.checkpoint import open_checkpoint
from issun.export.lazy import CheckpointWeights
from issun.runtime import BundleError
from tests.checkpoints import SHAPES, Array, config_of, make_weights, save_weights

NAME = "head-17"
WIDTH = SHAPES[NAME].n_embd
ROWS = SHAPES[NAME].vocab_size
Weights = dict[str, Array]


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may damage."""
    return shutil.copytree(checkpoint(NAME), tmp_path / "checkpoint")


def damage(folder: Path, edit: Callable[[Weights], object]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path)


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    # An export raises the same error and leaves no files.
    before = sorted(folder.parent.iterdir())
    with pytest.raises(CheckpointError) as again:
        export(folder, folder.parent / "bundle")
    assert str(again.value) == message
    assert sorted(folder.parent.iterdir()) == before
    return message


def test_a_valid_checkpoint(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert len(checkpoint.stored) == 2 + 2 * 12 + 2
    assert "wte.weight" in checkpoint.stored  # names without the prefix
    assert [path.name for path in checkpoint.files] == ["model.safetensors", "spiece.model"]
    assert checkpoint.tokenizer.tokens.special["[SEP]"] == 5
    assert checkpoint.tokenizer.tokens.eos == 3


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        open_checkpoint(tmp_path / "no")


def test_a_missing_tensor(folder: Path) -> None:
    damage(folder, lambda weights: weights.pop("transformer.h.1.mlp.c_fc.bias"))
    assert "h.1.mlp.c_fc.bias is missing" in refusal(folder)


def test_a_wrong_shape(folder: Path) -> None:
    damage(
        folder, lambda weights: weights.update({"transformer.ln_f.bias": np.zeros(7, np.float32)})
    )
    assert f"ln_f.bias has shape [7], not [{WIDTH}]" in refusal(folder)


def test_a_transposed_weight(folder: Path) -> None:
    name = "transformer.h.0.attn.c_attn.weight"
    damage(folder, lambda weights: weights.update({name: np.ascontiguousarray(weights[name].T)}))
    assert f"c_attn.weight has shape [{3 * WIDTH}, {WIDTH}], not [{WIDTH}, {3 * WIDTH}]" in refusal(
        folder
    )


def test_an_unknown_tensor(folder: Path) -> None:
    extra = {"transformer.h.2.ln_1.bias": np.zeros(WIDTH, np.float32)}
    damage(folder, lambda weights: weights.update(extra))
    assert "h.2.ln_1.bias is unknown" in refusal(folder)


@pytest.mark.parametrize(
    ("dtype", "name"), [(np.int8, "I8"), (np.int64, "I64"), (np.float64, "F64")]
)
def test_an_unsupported_dtype(folder: Path, dtype: type, name: str) -> None:
    integers = {"transformer.ln_f.bias": np.zeros(WIDTH, dtype)}
    damage(folder, lambda weights: weights.update(integers))
    assert f"ln_f.bias has type {name}, not float32, float16 or bfloat16" in refusal(folder)


def test_all_faults_at_once(folder: Path) -> None:
    def edit(weights: Weights) -> None:
        del weights["transformer.wpe.weight"]
        weights["transformer.h.0.ln_1.bias"] = np.zeros((WIDTH, 1), np.float32)
        weights["transformer.h.1.ln_1.bias"] = np.zeros(WIDTH, np.int32)
        weights["transformer.extra"] = np.zeros(1, np.float32)

    damage(folder, edit)
    message = refusal(folder)
    for fault in (
        "wpe.weight is missing",
        f"h.0.ln_1.bias has shape [{WIDTH}, 1], not [{WIDTH}]",
        "h.1.ln_1.bias has type I32",
        "extra is unknown",
    ):
        assert fault in message


def test_many_faults_are_counted(folder: Path) -> None:
    change(folder / "config.json", n_layer=5)
    message = refusal(folder)
    assert message.count(" is missing") == 12
    assert message.endswith(f"; and {3 * 12 - 12} more.")


def test_positions_that_do_not_fit(folder: Path) -> None:
    change(folder / "config.json", n_positions=1024)
    assert f"wpe.weight has shape [256, {WIDTH}], not [1024, {WIDTH}]" in refusal(folder)


def test_a_truncated_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert "was not downloaded completely" in refusal(folder)


def test_an_unknown_activation(folder: Path) -> None:
    change(folder / "config.json", activation_function="tanh")
    assert "'tanh' is not supported" in refusal(folder)


def test_another_architecture(folder: Path) -> None:
    change(folder / "config.json", model_type="gptj", architectures=["GPTJForCausalLM"])
    assert "gptj (GPTJForCausalLM)" in refusal(folder)


def test_no_tokenizer(folder: Path) -> None:
    (folder / "spiece.model").unlink()
    assert "has no tokenizer: expected one of spiece.model, " in refusal(folder)


@pytest.mark.parametrize("name", ["sentencepiece.model", "tokenizer.model"])
def test_other_names_of_the_tokenizer(folder: Path, name: str) -> None:
    (folder / "spiece.model").rename(folder / name)
    assert open_checkpoint(folder).tokenizer.path == folder / name


def test_a_damaged_tokenizer(folder: Path) -> None:
    (folder / "spiece.model").write_bytes(b"no model")
    with pytest.raises(BundleError, match="is not a SentencePiece model"):
        open_checkpoint(folder)


def test_more_pieces_than_rows(folder: Path) -> None:
    change(folder / "config.json", vocab_size=399)
    assert "it has 400 pieces; vocab_size is 399" in refusal(folder)


def test_a_special_token_beyond_the_rows(folder: Path) -> None:
    change(folder / "config.json", vocab_size=400)
    change(folder / "tokenizer_config.json", **{"sep_token": "<sep>", "mask_token": "<mask>"})
    message = refusal(folder)
    assert "<sep> has the id 400, <mask> has the id 401; vocab_size is 400" in message


def test_a_special_token_after_the_pieces(folder: Path) -> None:
    change(folder / "tokenizer_config.json", **{"sep_token": "<sep>"})
    assert open_checkpoint(folder).tokenizer.tokens.sep == 400


def test_tokens_may_be_written_as_objects(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    content = {"sep_token": {"content": "[SEP]"}, "pad_token": None, "eos_token": "</s>"}
    change(folder / "special_tokens_map.json", **content)
    tokenizer = open_checkpoint(folder).tokenizer
    assert tokenizer.tokens.sep == 5
    assert tokenizer.tokens.pad is None
    assert tokenizer.tokens.bos == 2  # SentencePiece's own name


def test_lower_casing_is_taken_from_the_tokenizer(folder: Path) -> None:
    assert not open_checkpoint(folder).tokenizer.tokens.do_lower_case
    change(folder / "tokenizer_config.json", do_lower_case=True)
    assert open_checkpoint(folder).tokenizer.tokens.do_lower_case


def test_the_unknown_token_is_optional(folder: Path) -> None:
    change(folder / "tokenizer_config.json", unk_token=None)
    assert open_checkpoint(folder).tokenizer.tokens.unk is None


# --- extra and missing weights ---


def test_mask_buffers_are_skipped(folder: Path) -> None:
    def edit(weights: Weights) -> None:
        weights["transformer.h.0.attn.bias"] = np.ones((1, 1, 256, 256), np.uint8)
        weights["transformer.h.0.attn.masked_bias"] = np.float32([-1e4])

    before = set(open_checkpoint(folder).stored)
    damage(folder, edit)
    assert set(open_checkpoint(folder).stored) == before


def test_names_without_the_prefix(folder: Path) -> None:
    before = {name: tensor.read() for name, tensor in open_checkpoint(folder).stored.items()}
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name.removeprefix("transformer."): array for name, array in weights.items()},
        folder / "model.safetensors",
    )
    after = open_checkpoint(folder).stored
    assert set(after) == set(before)
    assert all(np.array_equal(after[name].read(), before[name]) for name in before)


def test_a_tied_head_is_ignored(folder: Path) -> None:
    one, other = folder.parent / "one", folder.parent / "other"
    export(folder, one, ExportOptions(precision="float32"))
    damage(
        folder,
        lambda weights: weights.update({"lm_head.weight": np.ones((ROWS, WIDTH), np.float32)}),
    )
    assert "lm_head.weight" not in open_checkpoint(folder).stored
    export(folder, other, ExportOptions(precision="float32"))
    assert (one / "model.onnx.data").read_bytes() == (other / "model.onnx.data").read_bytes()


def test_an_untied_head_is_needed(folder: Path) -> None:
    change(folder / "config.json", tie_word_embeddings=False)
    assert "lm_head.weight is missing" in refusal(folder)
    damage(
        folder,
        lambda weights: weights.update({"lm_head.weight": np.ones((ROWS, WIDTH), np.float32)}),
    )
    assert "lm_head.weight" in open_checkpoint(folder).stored


# --- NaN and infinity ---


@pytest.mark.sampled
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize(
    "name", ["wte.weight", "wpe.weight", "h.1.mlp.c_fc.weight", "h.0.ln_1.bias"]
)
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_nan_and_infinity_are_named(
    tmp_path: Path, spiece: Path, precision: Any, name: str, bad: float
) -> None:
    source = tmp_path / "checkpoint"
    source.mkdir()
    weights = make_weights(SHAPES["inner-90"])
    weights[f"transformer.{name}"].flat[-1] = bad
    save_weights(source, weights)
    shutil.copy(spiece, source / "spiece.model")
    (source / "config.json").write_text(json.dumps(config_of(SHAPES["inner-90"])))
    change(source / "tokenizer_config.json", **{"sep_token": "[SEP]"})
    with pytest.raises(CheckpointError, match=rf"{name} contains NaN or infinity"):
        export(source, tmp_path / "bundle", ExportOptions(precision=precision))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("name", "bad", "part"),
    [
        ("wte.weight", np.nan, "contains NaN or infinity"),
        ("ln_f.bias", np.inf, "contains NaN or infinity"),
        ("wpe.weight", 7e4, "the limit of float16"),
    ],
)
def test_tensors_outside_blocks_are_checked_before_gptq(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, bad: float, part: str
) -> None:
    def too_early(*_: object) -> None:
        raise AssertionError("GPTQ has begun")

    monkeypatch.setattr(CheckpointWeights, "quantize_gptq", too_early)
    damage(folder, lambda weights: np.put(weights[f"transformer.{name}"], -1, bad))
    with pytest.raises(CheckpointError, match=rf"{name} .*{part}"):
        export(folder, folder.parent / "bundle", ExportOptions(precision="int4"))


@pytest.mark.parametrize(
    "table", [7, "x", True, {"a": 1}, [7], ["x"], [None], [[]], [{"content": "x"}], [{"id": 400}]]
)
def test_an_invalid_table_of_added_tokens(folder: Path, table: object) -> None:
    change(folder / "tokenizer.json", added_tokens=table)
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json: .* is not a (list of tokens|token)"
    ):
        open_checkpoint(folder)
