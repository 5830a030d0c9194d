"""Every linear layer in every precision, in one data file, and graphs of any mixture over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir

from issun.export.graph import IR_VERSION, build_graph
from issun.export.kinds import KINDS, Kind
from issun.export.lazy import CheckpointWeights
from issun.export.saving import data_bytes

Save = Callable[[ir.Model, Path, str], None]  # a model, its file and the name of its data file
_DATA = "candidates.data"


class Candidates:
    """The candidates of all linear layers, written once to a folder.

    Measuring a mixture then costs a small graph that points into the data file.
    """

    def __init__(self, weights: CheckpointWeights, folder: Path, save: Save) -> None:
        """Quantize and write all candidates with `save`."""
        self._weights, self.folder = weights, folder
        found: dict[str, ir.TensorProtocol | None] = {}
        for kind in KINDS:
            weights.kinds = dict.fromkeys(weights.linears, kind)
            for name, value in build_graph(weights.network, weights).graph.initializers.items():
                found.setdefault(_stored_name(name, weights.kinds), value.const_value)
        values = [ir.Value(name=name, const_value=tensor) for name, tensor in found.items()]
        graph = ir.Graph([], [], nodes=[], initializers=values, name="candidates")
        model, path = ir.Model(graph, ir_version=IR_VERSION), folder / "candidates.onnx"
        save(model, path, _DATA)
        loaded = ir.load(path).graph.initializers
        self._tensors = {name: value.const_value for name, value in loaded.items()}

    def build(self, kinds: Mapping[str, Kind]) -> ir.Model:
        """The graph in which each linear layer has its precision in `kinds`."""
        self._weights.kinds = dict(kinds)
        model = build_graph(self._weights.network, self._weights)
        for name, value in model.graph.initializers.items():
            value.const_value = self._tensors[_stored_name(name, kinds)]
        return model

    def write(self, kinds: Mapping[str, Kind], path: Path) -> int:
        """Write the graph of a mixture over the candidates' file, to the same folder.

        Returns the bytes that the mixture takes as graph and data of a bundle.
        """
        model = self.build(kinds)
        ir.save(model, path)
        return path.stat().st_size + data_bytes(model)


def _stored_name(name: str, kinds: Mapping[str, Kind]) -> str:
    """A tensor's name in the candidates' file: a linear layer's has its precision."""
    base, _, part = name.rpartition(".")
    return name if base not in kinds or part == "bias" else f"{name}@{kinds[base]}"
