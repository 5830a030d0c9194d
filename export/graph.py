"""Builds the ONNX graph of a GPT-2, one method per part, from the operators measured as fastest.

The operators are documented in docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from issun.export.builder import GraphBuilder
from issun.export.config import ACTIVATION_FLOOR, ACTIVATIONS, GPT2Config
from issun.export.lazy import DOWN_PROJ, EMBEDDING_BLOCK, WeightSource

OPSET = 21
IR_VERSION = 10
_MS = "com.microsoft"

KVScales = Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def build_graph(
    config: GPT2Config, weights: WeightSource, kv_scales: KVScales | None = None
) -> ir.Model:
    """Build the graph; with `kv_scales`, one pair per layer, the KV cache is int8.

    Inputs: input_ids and position_ids int64 (batch, sequence), seqlens_k and query_seqlens int32
    (batch), total_sequence_length int32 scalar, logit_rows int64 (rows), past_key_values.{i}.key
    and .value (batch, head, capacity, head_dim). Outputs: logits float32 (rows, vocab),
    present.{i}.key and .value, which must be bound to the same buffers as the past.
    """
    return _GPT2Builder(config, weights, kv_scales).build()


class _GPT2Builder(GraphBuilder):
    """Builds the parts of the graph in order."""

    def __init__(
        self, config: GPT2Config, weights: WeightSource, kv_scales: KVScales | None
    ) -> None:
        super().__init__(weights)
        self.config, self.kv_scales = config, kv_scales
        int32, int64 = ir.DataType.INT32, ir.DataType.INT64
        self.input_ids = ir.val("input_ids", int64, ("batch", "sequence"))
        self.position_ids = ir.val("position_ids", int64, ("batch", "sequence"))
        self.seqlens_k = ir.val("seqlens_k", int32, ("batch",))
        self.query_seqlens = ir.val("query_seqlens", int32, ("batch",))
        self.total = ir.val("total_sequence_length", int32, ())
        self.logit_rows = ir.val("logit_rows", int64, ("rows",))
        self.past: list[ir.Value] = []
        self.present: list[ir.Value] = []

    def build(self) -> ir.Model:
        hidden = self.embed()
        for layer in range(self.config.n_layer):
            hidden = self.block(hidden, layer)
        logits = self.head(hidden)
        graph = ir.Graph(
            inputs=[
                self.input_ids,
                self.position_ids,
                self.seqlens_k,
                self.query_seqlens,
                self.total,
                self.logit_rows,
                *self.past,
            ],
            outputs=[logits, *self.present],
            nodes=self.tape.nodes,
            initializers=self.tape.initializers,
            opset_imports={"": OPSET, _MS: 1},
            name="gpt2",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="issun")

    def embed(self) -> ir.Value:
        """Token and position embeddings; a quantized table is shared with the head."""
        if self.weights.precision == "float32":
            tokens = self.op("Gather", [self.weight("wte.weight"), self.input_ids])
        else:
            scales = self.op("Unsqueeze", [self.weight("wte.scale"), self.ints("last", [-1])])
            # Rank 3 as in the head: a reshaped copy would take the table's size again.
            blocks = self.op(
                "GatherBlockQuantized",
                [self.weight("wte.weight"), self.input_ids, scales],
                {"bits": 8, "block_size": EMBEDDING_BLOCK, "gather_axis": 0, "quantize_axis": 2},
                domain=_MS,
            )
            tokens = self.op("Reshape", [blocks, self.ints("merge", [0, 0, -1])])
            if self.config.n_embd % EMBEDDING_BLOCK:  # the last block is padded
                tokens = self.op(
                    "Slice",
                    [
                        tokens,
                        self.ints("zero", [0]),
                        self.ints("width", [self.config.n_embd]),
                        self.ints("last", [-1]),
                    ],
                )
        positions = self.op("Gather", [self.weight("wpe.weight"), self.position_ids])
        return self.op("Add", [tokens, positions])

    def block(self, hidden: ir.Value, layer: int) -> ir.Value:
        """One transformer block: attention and MLP, each after a LayerNormalization.

        After the last attention only the rows in `logit_rows` are computed.
        """
        at = f"h.{layer}"
        attended = self.attention(self.layer_norm(hidden, f"{at}.ln_1"), layer)
        if layer == self.config.n_layer - 1:
            hidden, attended = self.select_rows(hidden), self.select_rows(attended)
        hidden = self.op("Add", [hidden, self.affine(attended, f"{at}.attn.c_proj")])
        return self.op("Add", [hidden, self.mlp(self.layer_norm(hidden, f"{at}.ln_2"), at)])

    def attention(self, x: ir.Value, layer: int) -> ir.Value:
        """Causal attention of the new tokens over the KV cache, which is updated in place."""
        at = f"h.{layer}.attn"
        qkv = self.affine(x, f"{at}.c_attn")
        heads, width = self.config.n_head, self.config.kv_head_dim
        attributes: dict[str, Any] = {
            "num_heads": heads,
            "kv_num_heads": heads,
            "scale": self.config.attention_scale(layer),
        }
        scales: list[ir.Value | None] = [None, None]
        dtype = ir.DataType.FLOAT
        if self.kv_scales is not None:
            dtype = ir.DataType.INT8
            scales = [
                self.constant(f"{at}.{part}_scale", array.reshape(1, heads, 1, width))
                for part, array in zip(("k", "v"), self.kv_scales[layer], strict=True)
            ]
            attributes |= {
                "k_quant_type": "PER_CHANNEL",
                "v_quant_type": "PER_CHANNEL",
                "kv_cache_bit_width": 8,
            }
        past, present = (
            [
                ir.val(f"{name}.{layer}.{part}", dtype, ("batch", heads, "capacity", width))
                for part in ("key", "value")
            ]
            for name in ("past_key_values", "present")
        )
        self.past += past
        self.present += present
        return self.tape.op_multi_out(
            "GroupQueryAttention",
            [
                *(qkv, None, None, *past, self.seqlens_k, self.total),
                *(None, None, None, None, None, *scales, None, None, self.query_seqlens),
            ],
            attributes,
            outputs=[ir.Value(name=f"{at}.out"), *present],
            domain=_MS,
            name=f"{at}.gqa",
        )[0]

    def mlp(self, x: ir.Value, at: str) -> ir.Value:
        """The MLP: up projection, activation, down projection."""
        up = self.linear(x, f"{at}.mlp.c_fc")
        operator = ACTIVATIONS[self.config.activation_function]
        if operator == "FastGelu":
            fused = self.weights.kind(f"{at}.mlp.c_fc") == "int4"
            bias = [] if fused else [self.weight(f"{at}.mlp.c_fc.bias")]
            active = self.op(operator, [up, *bias], domain=_MS)
        else:
            active = self.op(operator, [self.bias(up, f"{at}.mlp.c_fc")])
        return self.affine(active, f"{at}.{DOWN_PROJ}")

    def select_rows(self, x: ir.Value) -> ir.Value:
        """The rows of x (batch, sequence, width) that `logit_rows` selects: (rows, width)."""
        return self.op("Gather", [self.op("Flatten", [x], {"axis": 2}), self.logit_rows])

    def head(self, hidden: ir.Value) -> ir.Value:
        """Logits of every row of `hidden`."""
        normed = self.layer_norm(hidden, "ln_f")
        logits = ir.val("logits", ir.DataType.FLOAT, ("rows", self.config.vocab_size))
        name = "wte" if self.config.tie_word_embeddings else "lm_head"
        if self.weights.precision == "float32":
            weight = self.weight(f"{name}.weight")
            return self.op("Gemm", [normed, weight], {"transB": 1}, output=logits)
        return self.op(
            "MatMulNBits",
            [normed, self.weight(f"{name}.weight"), self.weight(f"{name}.scale")],
            self.nbits(self.config.n_embd, self.config.vocab_size, 8, EMBEDDING_BLOCK),
            domain=_MS,
            output=logits,
        )

    def affine(self, x: ir.Value, name: str) -> ir.Value:
        """x @ weight + bias."""
        return self.bias(self.linear(x, name), name)

    def linear(self, x: ir.Value, name: str) -> ir.Value:
        """x @ weight, with outlier channels of x multiplied in float32."""
        channels = self.weights.outlier_channels(name)
        if channels is None:
            return self.quantized_linear(x, name)
        indices = self.constant(f"{name}.outlier_channels", channels)
        outliers = self.op("Gather", [x, indices], {"axis": -1})
        exact = self.op("MatMul", [outliers, self.weight(f"{name}.outlier_weight")])
        inliers = self.op("Mul", [x, self.weight(f"{name}.inlier_mask")])
        return self.op("Add", [self.quantized_linear(inliers, name), exact])

    def quantized_linear(self, x: ir.Value, name: str) -> ir.Value:
        """x @ weight in the linear layer's precision; int4 also adds the bias (see `bias`)."""
        weight, kind = self.weight(f"{name}.weight"), self.weights.kind(name)
        if kind == "float32":
            return self.op("MatMul", [x, weight])
        scale = self.weight(f"{name}.scale")
        if kind == "int8":
            return self.int8_linear(x, weight, scale, shifted=name.endswith(DOWN_PROJ))
        width, out = self.weights.linear_shape(f"{name}.weight")
        return self.op(
            "MatMulNBits",
            [x, weight, scale, None, None, self.weight(f"{name}.bias")],
            self.nbits(width, out, 4, self.weights.block),
            domain=_MS,
        )

    def int8_linear(
        self, x: ir.Value, weight: ir.Value, scale: ir.Value, *, shifted: bool
    ) -> ir.Value:
        """u8 x s8 with one activation scale per row, so that results do not depend on the batch.

        GELU outputs are quantized asymmetrically: `shifted` adds a constant that makes them
        non-negative, so that all 255 steps are used. The folded bias subtracts it again.
        """
        if shifted:
            x = self.op("Add", [x, self.scalar("floor", np.float32(ACTIVATION_FLOOR))])
            peak = self.op("ReduceMax", [x, self.ints("last", [-1])], {"keepdims": 1})
            step, zero = self.scalar("fine", np.float32(1 / 255)), self.scalar("low", np.uint8(0))
        else:
            size = self.op("Abs", [x])
            peak = self.op("ReduceMax", [size, self.ints("last", [-1])], {"keepdims": 1})
            step = self.scalar("step", np.float32(1 / 127))
            zero = self.scalar("middle", np.uint8(128))
        quantized = self.op("QuantizeLinear", [self.op("Div", [x, peak]), step, zero])
        product = self.op(
            "MatMulIntegerToFloat", [quantized, weight, step, scale, zero], domain=_MS
        )
        return self.op("Mul", [product, peak])

    def bias(self, x: ir.Value, name: str) -> ir.Value:
        """x + bias, unless the operator of `linear` has added it already."""
        kind = self.weights.kind(name)
        if kind == "int4":
            return x
        shifted = kind == "int8" and name.endswith(DOWN_PROJ)
        part = "folded_bias" if shifted else "bias"
        return self.op("Add", [x, self.weight(f"{name}.{part}")])

    def layer_norm(self, x: ir.Value, name: str) -> ir.Value:
        """LayerNormalization over the last axis."""
        return self.op(
            "LayerNormalization",
            [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")],
            {"axis": -1, "epsilon": self.config.layer_norm_epsilon},
        )

    def nbits(self, width: int, out: int, bits: int, block: int) -> dict[str, int]:
        # accuracy_level 4 selects the int8 kernel, 90 times faster for 8-bit weights.
        return {"K": width, "N": out, "bits": bits, "block_size": block, "accuracy_level": 4}
