"""OpenVINO with weights compressed by NNCF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from issun.benchmarks.engines.greedy import GreedyEngine

_HOW = (
    "stateful; compiled with the LATENCY hint, one stream, the head applied to the last position "
    "only as in OpenVINO GenAI; otherwise defaults, such as a uint8 KV cache, and bfloat16 if the "
    "CPU supports it."
)


class _OpenVINO(GreedyEngine):
    """Exported with optimum-intel, run with OpenVINO's runtime directly."""

    packages = ("openvino", "nncf", "optimum-intel")
    compression: ClassVar[dict[str, Any]]
    _request: Any
    _inputs: frozenset[str]
    _length: int

    def convert(self) -> None:
        """Export and compress the weights."""
        from optimum.intel import (  # noqa: PLC0415
            OVModelForCausalLM,
            OVWeightQuantizationConfig,
        )

        model = OVModelForCausalLM.from_pretrained(
            self.checkpoint,
            export=True,
            compile=False,
            stateful=True,
            quantization_config=OVWeightQuantizationConfig(**self.compression),
            local_files_only=True,
        )
        model.save_pretrained(self.folder)

    def load(self, threads: int) -> None:
        """Compile the model."""
        import openvino  # noqa: PLC0415

        core = openvino.Core()
        model = core.read_model(self.folder / "openvino_model.xml")
        _keep_last(model)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        compiled = core.compile_model(model, "CPU", settings)
        self._inputs = frozenset(port.any_name for port in compiled.inputs)
        self._request = compiled.create_infer_request()

    def reset(self) -> None:
        """Clear the keys and values, which are the request's state."""
        self._request.reset_state()
        self._length = 0

    def next_token(self, ids: Sequence[int]) -> int:
        """One inference request."""
        before, self._length = self._length, self._length + len(ids)
        inputs = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, self._length), np.int64),
            "position_ids": np.arange(before, self._length, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self._request.infer({name: inputs[name] for name in self._inputs})
        return int(self._request.get_tensor("logits").data[0, -1].argmax())


def _keep_last(model: Any) -> None:
    """Slice the head's input to its last row."""
    from openvino import opset13  # noqa: PLC0415

    head = model.output("logits").get_node().input_value(0).get_node()
    if head.get_type_name() != "MatMul":
        raise RuntimeError(f"the logits come from a {head.get_type_name()}, not from a MatMul")
    start, stop, step, axis = (np.array([value], np.int64) for value in (-1, -2, -1, 1))
    last = opset13.slice(head.input_value(0), start, stop, step, axis)
    head.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()


class OpenVINOInt8(_OpenVINO):
    """int8 weights."""

    label = "OpenVINO int8"
    compression: ClassVar[dict[str, Any]] = {"bits": 8}
    settings = f"`OVModelForCausalLM` with `OVWeightQuantizationConfig(bits=8)`, {_HOW}"


class OpenVINOInt4(_OpenVINO):
    """int4 weights in groups of 128."""

    label = "OpenVINO int4"
    compression: ClassVar[dict[str, Any]] = {
        "bits": 4,
        "group_size": 128,
        "sym": False,
        "ratio": 1.0,
    }
    settings = (
        "`OVModelForCausalLM` with `OVWeightQuantizationConfig(bits=4, group_size=128, sym=False, "
        f"ratio=1.0)`, which keeps the embedding and head at 8 bits; {_HOW}"
    )
