"""OpenVINO with weights compressed by NNCF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.engines.greedy import GreedyEngine

_HOW = (
    "stateful; compiled with the LATENCY hint, one stream, the head applied to the last position "
    "only as in OpenVINO GenAI; otherwise defaults, such as a uint8 KV cache, and bfloat16 if the "
    "CPU supports it."
)


class _OpenVINO(GreedyEngine):
    """Exported with optimum-intel, run with OpenVINO's runtime directly."""

    packages = ("openvino", "nncf", "optimum-intel")
    families = ("gpt2",)
    compression: ClassVar[dict[str, Any]]
    _request: Any
    _whole: Any = None
    _threads: int
    _length: int

    @property
    def _path(self) -> Path:
        return self.folder / "openvino_model.xml"

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

        model = openvino.Core().read_model(self._path)
        _keep_last(model)
        self._threads = threads
        self._request = self._compile(model)

    def _compile(self, model: Any) -> Any:
        """A request for the model."""
        import openvino  # noqa: PLC0415

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
        }
        return openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def reset(self) -> None:
        """Clear the keys and values, which are the request's state."""
        self._request.reset_state()
        self._length = 0

    def next_token(self, ids: Sequence[int]) -> int:
        """One inference request."""
        before, self._length = self._length, self._length + len(ids)
        self._request.infer(_inputs(self._request.model_inputs, ids, before))
        return int(self._request.get_tensor("logits").data[0, -1].argmax())

    def model_files(self) -> list[Path]:
        """The graph and its weights."""
        return [self._path, self._path.with_suffix(".bin")]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """A request of the model with its head applied to every position, compiled once."""
        import openvino  # noqa: PLC0415

        if self._whole is None:
            self._whole = self._compile(openvino.Core().read_model(self._path))
        self._whole.reset_state()
        self._whole.infer(_inputs(self._whole.model_inputs, ids, 0))
        return np.array(self._whole.get_tensor("logits").data[0])


def _inputs(ports: Any, ids: Sequence[int], before: int) -> dict[str, NDArray[np.generic]]:
    """The values for those of the ports that a model has; `before` ids are in the cache."""
    length = before + len(ids)
    values: dict[str, NDArray[np.generic]] = {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": np.arange(before, length, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    names = {port.any_name for port in ports}
    return {name: value for name, value in values.items() if name in names}


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


class OpenVINOInt4Fitted(_OpenVINO):
    """The same, fitted to the calibration ids by activation-aware scales and scale estimation."""

    label = "OpenVINO int4, AWQ and scale estimation"
    settings = (
        "`OVModelForCausalLM` without quantization, then `nncf.compress_weights(mode=INT4_ASYM, "
        "group_size=128, ratio=1.0, awq=True, scale_estimation=True)` with the calibration ids as "
        f"its dataset, which keeps the embedding and head at 8 bits; {_HOW}"
    )

    def convert(self) -> None:
        """Export in float32, and compress the weights for the calibration ids."""
        import nncf  # noqa: PLC0415
        import openvino  # noqa: PLC0415
        from optimum.intel import OVModelForCausalLM  # noqa: PLC0415

        from issun.benchmarks.calibration import calibration_windows  # noqa: PLC0415

        exported = OVModelForCausalLM.from_pretrained(
            self.checkpoint,
            export=True,
            compile=False,
            stateful=True,
            load_in_8bit=False,
            local_files_only=True,
        )
        _transpose_weights(exported.model)
        windows = calibration_windows(self.checkpoint, self.calibration)
        data = [_inputs(exported.model.inputs, [int(i) for i in window], 0) for window in windows]
        model = nncf.compress_weights(
            exported.model,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=128,
            ratio=1.0,
            awq=True,
            scale_estimation=True,
            dataset=nncf.Dataset(data),
            subset_size=len(data),
        )
        openvino.save_model(model, self._path, compress_to_fp16=False)


def _transpose_weights(model: Any) -> None:
    """Store the weights of all products as (out, in).

    GPT-2 has them as (in, out), for which NNCF's data-aware methods choose wrong scales
    (https://github.com/openvinotoolkit/nncf/issues/3494).
    """
    from openvino import opset13  # noqa: PLC0415

    for product in model.get_ops():
        if product.get_type_name() != "MatMul" or product.get_attributes()["transpose_b"]:
            continue
        source = product.input_value(1).get_node()
        if source.get_type_name() == "Convert":  # from float16
            source = source.input_value(0).get_node()
        if source.get_type_name() != "Constant":
            continue
        weight = opset13.constant(np.ascontiguousarray(source.data.T.astype(np.float32)))
        rows = product.input_value(0)
        transposed = opset13.matmul(rows, weight, transpose_a=False, transpose_b=True)
        product.output(0).replace(transposed.output(0))
    model.validate_nodes_and_infer_types()
