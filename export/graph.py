"""Builds the ONNX graph of a network, one method per part, from the fastest operators measured.

The operators are documented in docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from issun.export.builder import GraphBuilder
from issun.export.kinds import BLOCKS, EMBEDDING, Blocks, rounds_twice
from issun.export.lazy import WeightSource
from issun.export.network import ACTIVATIONS, FULL, Network
from issun.export.quantize import row_groups
from issun.export.rotary import cos_sin

OPSET = 21
IR_VERSION = 10
_MS = "com.microsoft"

KVScales = Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def build_graph(
    network: Network, weights: WeightSource, kv_scales: KVScales | None = None
) -> ir.Model:
    """Build the graph; with `kv_scales`, one pair per layer, the KV cache is int8.

    Inputs: input_ids and position_ids int64 (batch, sequence), seqlens_k and query_seqlens int32
    (batch), total_sequence_length int32 scalar, logit_rows int64 (rows), past_key_values.{i}.key
    and .value (batch, head, capacity, head_dim). Outputs: logits float32 (rows, vocab),
    present.{i}.key and .value, which must be bound to the same buffers as the past.
    """
    return DecoderBuilder(network, weights, kv_scales).build()


class DecoderBuilder(GraphBuilder):
    """Builds the parts of the graph in order."""

    def __init__(self, network: Network, weights: WeightSource, kv_scales: KVScales | None) -> None:
        super().__init__(weights)
        self.network, self.kv_scales = network, kv_scales
        int32, int64 = ir.DataType.INT32, ir.DataType.INT64
        self.input_ids = ir.val("input_ids", int64, ("batch", "sequence"))
        self.position_ids = ir.val("position_ids", int64, ("batch", "sequence"))
        self.seqlens_k = ir.val("seqlens_k", int32, ("batch",))
        self.query_seqlens = ir.val("query_seqlens", int32, ("batch",))
        self.total = ir.val("total_sequence_length", int32, ())
        self.logit_rows = ir.val("logit_rows", int64, ("rows",))
        self.lead = [0, 0]  # what Reshape keeps: batch and sequence, or rows once they are selected
        self.past: list[ir.Value] = []
        self.present: list[ir.Value] = []
        # Where adapters read and add: the input of each linear layer, its output, and their rank.
        self.places: dict[str, tuple[ir.Value, ir.Value, int]] = {}

    def build(self) -> ir.Model:
        """The whole graph."""
        hidden = self.embed()
        for layer in range(self.network.n_layer):
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
            name="decoder",
        )
        places = {
            f"linear.{name}": f"{x.name} {y.name} {rank}"
            for name, (x, y, rank) in self.places.items()
        }
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="issun", metadata_props=places)

    def embed(self) -> ir.Value:
        """The token embedding, plus learned positions; a tied head shares the quantized table."""
        if self.weights.precision == "float32":
            tokens = self.op("Gather", [self.weight("embed.weight"), self.input_ids])
        else:
            size = EMBEDDING.block
            scales = self.op("Unsqueeze", [self.weight("embed.scale"), self.ints("last", [-1])])
            # Rank 3 as in the head: a reshaped copy would take the table's size again.
            blocks = self.op(
                "GatherBlockQuantized",
                [self.weight("embed.weight"), self.input_ids, scales],
                {"bits": 8, "block_size": size, "gather_axis": 0, "quantize_axis": 2},
                domain=_MS,
            )
            tokens = self.op("Reshape", [blocks, self.ints("merge", [0, 0, -1])])
            if self.network.n_embd % size:  # the last block is padded
                tokens = self.op(
                    "Slice",
                    [
                        tokens,
                        self.ints("zero", [0]),
                        self.ints("width", [self.network.n_embd]),
                        self.ints("last", [-1]),
                    ],
                )
        if not self.network.learned_positions:
            return tokens
        positions = self.op("Gather", [self.weight("positions.weight"), self.position_ids])
        if self.weights.precision != "float32":  # float16, which float32 logits cannot tell apart
            positions = self.op("Cast", [positions], {"to": ir.DataType.FLOAT})
        return self.op("Add", [tokens, positions])

    def block(self, hidden: ir.Value, layer: int) -> ir.Value:
        """One transformer block: attention and MLP, each after a norm.

        After the last attention only the rows in `logit_rows` are computed.
        """
        at = f"h.{layer}"
        attended = self.attention(self.norm(hidden, f"{at}.norm_1"), layer)
        if layer == self.network.n_layer - 1:
            hidden, attended = self.select_rows(hidden), self.select_rows(attended)
        attended = self.affine(attended, f"{at}.out")
        if self.network.parallel:
            mlp = self.mlp(self.norm(hidden, f"{at}.norm_2"), at)
            return self.op("Add", [self.op("Add", [hidden, attended]), mlp])
        hidden = self.op("Add", [hidden, attended])
        return self.op("Add", [hidden, self.mlp(self.norm(hidden, f"{at}.norm_2"), at)])

    def attention(self, x: ir.Value, layer: int) -> ir.Value:
        """Causal attention of the new tokens over the KV cache, which is updated in place."""
        network, at = self.network, f"h.{layer}"
        heads, kv_heads, width = network.n_head, network.n_kv_head, network.kv_head_dim
        qkv = self.affine(x, f"{at}.qkv")
        attributes: dict[str, Any] = {
            "num_heads": heads,
            "kv_num_heads": kv_heads,
            "scale": network.scales[layer],
        }
        if network.window(layer) != FULL:
            attributes["local_window_size"] = network.window(layer)
        tables: list[ir.Value | None] = [None, None]
        if network.rotary:
            attributes["do_rotary"] = 1
            tables = self.rotary_tables()
        scales: list[ir.Value | None] = [None, None]
        dtype = ir.DataType.FLOAT
        if self.kv_scales is not None:
            dtype = ir.DataType.INT8
            scales = [
                self.constant(f"{at}.{part}_scale", array.reshape(1, kv_heads, 1, width))
                for part, array in zip(("k", "v"), self.kv_scales[layer], strict=True)
            ]
            attributes |= {
                "k_quant_type": "PER_CHANNEL",
                "v_quant_type": "PER_CHANNEL",
                "kv_cache_bit_width": 8,
            }
        past, present = (
            [
                ir.val(f"{name}.{layer}.{part}", dtype, ("batch", kv_heads, "capacity", width))
                for part in ("key", "value")
            ]
            for name in ("past_key_values", "present")
        )
        self.past += past
        self.present += present
        return self.tape.op_multi_out(
            "GroupQueryAttention",
            [
                *(*self.heads(qkv, at), *past, self.seqlens_k, self.total, *tables),
                *(None, None, None, *scales, None, None, self.query_seqlens),
            ],
            attributes,
            outputs=[ir.Value(name=f"{at}.attended"), *present],
            domain=_MS,
            name=f"{at}.gqa",
        )[0]

    def heads(self, qkv: ir.Value, at: str) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
        """The inputs of attention: packed, or split so that queries and keys are normalized.

        The norms are separate nodes, since the CPU kernel does not support q_norm_weight.
        """
        network = self.network
        if not network.head_norms:
            return qkv, None, None
        widths = [n * network.kv_head_dim for n in (network.n_head, *[network.n_kv_head] * 2)]
        query, key, value = self.tape.op_multi_out(
            "Split",
            [qkv, self.ints("qkv_widths", widths)],
            {"axis": -1},
            outputs=[ir.Value(name=f"{at}.{part}") for part in ("query", "key", "value")],
        )
        query = self.head_norm(query, f"{at}.q_norm", network.n_head)
        return query, self.head_norm(key, f"{at}.k_norm", network.n_kv_head), value

    def head_norm(self, x: ir.Value, name: str, heads: int) -> ir.Value:
        """An RMS norm of each head; epsilon and gain allow for padding (see `canonical.py`)."""
        network = self.network
        shape = self.ints(f"{heads}_heads", [0, 0, heads, network.kv_head_dim])
        epsilon = network.epsilon * network.head_dim / network.kv_head_dim
        normed = self.rms_norm(self.op("Reshape", [x, shape]), name, epsilon)
        return self.op("Reshape", [normed, self.ints("merge", [0, 0, -1])])

    def rotary_tables(self) -> list[ir.Value | None]:
        """The tables of cos and sin, which all layers share."""
        network = self.network
        if "rotary.cos" not in self._shared and network.rotary:
            cos, sin = cos_sin(network.rotary, network.kv_head_dim, network.n_positions)
            self.constant("rotary.cos", cos)
            self.constant("rotary.sin", sin)
        return [self._shared["rotary.cos"], self._shared["rotary.sin"]]

    def mlp(self, x: ir.Value, at: str) -> ir.Value:
        """The MLP: down(activation(up(x))), or down(activation(gate(x)) * up(x)) if it is gated."""
        if self.network.gated:
            active = self.activate(self.affine(x, f"{at}.gate"))
            active = self.op("Mul", [active, self.affine(x, f"{at}.up")])
        elif ACTIVATIONS[self.network.activation] == "FastGelu":  # it can add the bias
            up = self.note_place(f"{at}.up", x, self.linear(x, f"{at}.up"))
            fused = self.weights.kind(f"{at}.up") in BLOCKS
            bias = [] if fused else [self.weight(f"{at}.up.bias")]
            active = self.op("FastGelu", [up, *bias], domain=_MS)
        else:
            active = self.activate(self.affine(x, f"{at}.up"))
        return self.affine(active, f"{at}.down")

    def activate(self, x: ir.Value) -> ir.Value:
        """The activation function of x."""
        operator = ACTIVATIONS[self.network.activation]
        if operator == "Silu":  # ONNX Runtime fuses the two to QuickGelu
            return self.op("Mul", [x, self.op("Sigmoid", [x])])
        return self.op(operator, [x], domain=_MS if operator == "FastGelu" else "")

    def select_rows(self, x: ir.Value) -> ir.Value:
        """The rows of x (batch, sequence, width) that `logit_rows` selects: (rows, width)."""
        self.lead = [0]
        return self.op("Gather", [self.op("Flatten", [x], {"axis": 2}), self.logit_rows])

    def head(self, hidden: ir.Value) -> ir.Value:
        """Logits of every row of `hidden`."""
        normed = self.norm(hidden, "norm")
        logits = ir.val("logits", ir.DataType.FLOAT, ("rows", self.network.vocab_size))
        name = "embed" if self.network.tie_word_embeddings else "head"
        if self.weights.precision == "float32":
            weight = self.weight(f"{name}.weight")
            return self.op("Gemm", [normed, weight], {"transB": 1}, output=logits)
        return self.op(
            "MatMulNBits",
            [normed, self.weight(f"{name}.weight"), self.weight(f"{name}.scale")],
            self.nbits(
                self.network.n_embd,
                self.network.vocab_size,
                EMBEDDING,
            ),
            domain=_MS,
            output=logits,
        )

    def affine(self, x: ir.Value, name: str) -> ir.Value:
        """x @ weight + bias."""
        return self.note_place(name, x, self.bias(self.linear(x, name), name))

    def note_place(self, name: str, x: ir.Value, y: ir.Value) -> ir.Value:
        """Note that y is the output of a linear layer for x; returns y."""
        self.places[name] = (x, y, 1 + len(self.lead))
        return y

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
        """x @ weight in the linear layer's precision; blocks also add the bias (see `bias`)."""
        kind = self.weights.kind(name)
        if kind == "float32":
            return self.op("MatMul", [x, self.weight(f"{name}.weight")])
        if kind == "int8":
            floor = self.weights.floor(name)
            return self.row_linear(x, name) if floor is None else self.group_linear(x, name, floor)
        width, out = self.weights.linear_shape(f"{name}.weight")
        bias = self.weight(f"{name}.bias") if self.weights.has(f"{name}.bias") else None
        weight, scale = self.weight(f"{name}.weight"), self.weight(f"{name}.scale")
        return self.op(
            "MatMulNBits",
            [x, weight, scale, *([None, None, bias] if bias else [])],
            self.nbits(width, out, BLOCKS[kind]),
            domain=_MS,
        )

    def row_linear(self, x: ir.Value, name: str) -> ir.Value:
        """u8 x s8 with one activation scale per row, so that results do not depend on the batch.

        In the first block inputs are rounded to 7 bits, and what that leaves over is rounded to 7
        bits again and multiplied as a row of its own.
        """
        size = self.op("Abs", [x])
        peak = self.op("ReduceMax", [size, self.ints("last", [-1])], {"keepdims": 1})
        twice = rounds_twice(name)
        steps = 64 if twice else 127  # on each side of the middle
        step = self.scalar(f"step_{steps}", np.float32(1 / steps))
        zero = self.scalar(f"middle_{steps}", np.uint8(64 if twice else 128))
        unit = self.op("Div", [x, peak])
        quantized = self.op("QuantizeLinear", [unit, step, zero])
        if twice:
            rest = self.op("Sub", [unit, self.op("DequantizeLinear", [quantized, step, zero])])
            fine = self.scalar("finest", np.float32(1 / steps / (2 * steps)))
            second = self.op("QuantizeLinear", [rest, fine, zero])
            # Further rows, not a second product, which would read the weights again.
            quantized = self.op("Concat", [quantized, second], {"axis": -2})
        scale = self.weight(f"{name}.scale")
        product = self.op(
            "MatMulIntegerToFloat",
            [quantized, self.weight(f"{name}.weight"), step, scale, zero],
            domain=_MS,
        )
        if twice:
            product, rest = self.split(product, 2, axis=-2)
            rest = self.op("Mul", [rest, self.scalar("ratio", np.float32(1 / (2 * steps)))])
            product = self.op("Add", [product, rest])
        return self.op("Mul", [product, peak])

    def group_linear(self, x: ir.Value, name: str, floor: float) -> ir.Value:
        """u8 x s8 for outputs of an activation, with a scale per row and group of input channels.

        Few of a row's values are large, and spoil only the steps of their own group. `floor` is
        added, which makes all values non-negative, so that all 255 steps are used; the folded bias
        subtracts it again.
        """
        width, _ = self.weights.linear_shape(f"{name}.weight")
        groups = row_groups(width)
        size = width // groups
        x = self.op("Add", [x, self.scalar("floor", np.float32(floor))])
        shape = self.ints(f"groups_of_{len(self.lead)}", [*self.lead, groups, size])
        last = self.ints("last", [-1])
        peaks = self.op("ReduceMax", [self.op("Reshape", [x, shape]), last], {"keepdims": 0})
        steps = self.op("Mul", [peaks, self.scalar("fine", np.float32(1 / 255))])
        quantized = self.op(  # in blocks it takes steps of the input, which saves a division
            "QuantizeLinear",
            [x, steps],
            {"axis": -1, "block_size": size, "output_dtype": ir.DataType.UINT8},
        )
        one, zero = self.scalar("one", np.float32(1)), self.scalar("low_255", np.uint8(0))
        products = []
        parts = zip(self.split(quantized, groups), self.split(steps, groups), strict=True)
        for group, (part, step) in enumerate(parts):
            weight, scale = self.weight(f"{name}.weight_{group}"), f"{name}.scale_{group}"
            product = self.op(
                "MatMulIntegerToFloat",
                [part, weight, one, self.weight(scale), zero],
                domain=_MS,
            )
            products.append(self.op("Mul", [product, step]))
        return self.op("Sum", products)

    def split(self, x: ir.Value, count: int, *, axis: int = -1) -> Sequence[ir.Value]:
        """x in `count` equal parts along an axis."""
        attributes = {"axis": axis, "num_outputs": count}
        return self.tape.op_multi_out("Split", [x], attributes, num_outputs=count)

    def bias(self, x: ir.Value, name: str) -> ir.Value:
        """x + bias, unless the operator of `linear` has added it already."""
        kind = self.weights.kind(name)
        if kind in BLOCKS:
            return x
        shifted = kind == "int8" and self.weights.floor(name) is not None
        if not shifted and not self.weights.has(f"{name}.bias"):
            return x
        part = "folded_bias" if shifted else "bias"
        return self.op("Add", [x, self.weight(f"{name}.{part}")])

    def norm(self, x: ir.Value, name: str) -> ir.Value:
        """Layer norm or RMS norm over the last axis."""
        if self.network.norm == "rms":
            return self.rms_norm(x, name, self.network.epsilon)
        return self.op(
            "LayerNormalization",
            [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")],
            {"axis": -1, "epsilon": self.network.epsilon},
        )

    def rms_norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        """x / sqrt(mean(x^2) + epsilon) * weight over the last axis."""
        return self.op(
            "SimplifiedLayerNormalization",
            [x, self.weight(f"{name}.weight")],
            {"axis": -1, "epsilon": epsilon, "stash_type": 1},
        )

    def nbits(self, width: int, out: int, form: Blocks) -> dict[str, int]:
        """The attributes of MatMulNBits."""
        # accuracy_level 4 selects the int8 kernel, 90 times faster for 8-bit weights.
        return {
            "K": width,
            "N": out,
            "bits": form.bits,
            "block_size": form.block,
            "accuracy_level": 4,
        }
