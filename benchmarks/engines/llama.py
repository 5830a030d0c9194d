"""llama.cpp through llama-cpp-python."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.engines.greedy import GreedyEngine

if TYPE_CHECKING:
    from issun.export.checkpoint import Checkpoint
    from issun.export.weights import Array

_BATCH = 512
_PARTS = {"qkv": "attn_qkv", "out": "attn_output", "up": "ffn_up", "down": "ffn_down"}
_HOW = (
    "`Llama.eval` with `n_batch=512`, flash attention (llama.cpp's default choice), float16 KV "
    "cache, memory-mapped; build without AMX, whose kernels crash on some virtual machines."
)


class _Llama(GreedyEngine):
    """Written as GGUF with the `gguf` package; quantized and run by llama.cpp."""

    packages = ("llama-cpp-python", "gguf")
    families = ("gpt2",)
    chunk = _BATCH
    file_type: ClassVar[str]
    importance: ClassVar[bool]  # whether an importance matrix weights the rounding errors
    _llama: Any
    _vocab_size: int

    @property
    def _path(self) -> Path:
        return self.folder / "model.gguf"

    def convert(self) -> None:
        """Write a float16 file, and quantize it."""
        import llama_cpp  # noqa: PLC0415

        from issun.benchmarks.calibration import input_mean_squares  # noqa: PLC0415
        from issun.export.checkpoint import open_checkpoint  # noqa: PLC0415

        whole = self.folder / "float16.gguf"
        _write_gguf(open_checkpoint(self.checkpoint), whole)
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{self.file_type}")
        if self.importance:
            matrix = _importance_matrix(input_mean_squares(self.checkpoint, self.calibration))
            options.imatrix = ctypes.cast(matrix, type(options.imatrix))
        code = llama_cpp.llama_model_quantize(
            bytes(whole), bytes(self._path), ctypes.byref(options)
        )
        whole.unlink()
        if code:
            raise RuntimeError(f"llama_model_quantize returned {code}")

    def load(self, threads: int) -> None:
        """Load the quantized file."""
        from llama_cpp import Llama  # noqa: PLC0415

        self.kv_type = "float16"
        self._llama = Llama(
            str(self._path),
            n_ctx=0,  # the model's context
            n_batch=_BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        self._vocab_size = self._llama.n_vocab()

    def describe_settings(self) -> str:
        """Say whether this build has AMX, which a native build may have."""
        import llama_cpp  # noqa: PLC0415

        amx = "with" if b"AMX" in llama_cpp.llama_print_system_info() else "without"
        return f"{self.settings} This build is {amx} AMX."

    def matrix_types(self) -> str:
        """As in `Q6_K 16, Q8_0 17`: a type that does not fit a matrix's width is replaced."""
        import gguf  # noqa: PLC0415

        tensors = gguf.GGUFReader(self._path).tensors
        kinds = (t.tensor_type.name for t in tensors if len(t.shape) > 1)
        counts = Counter(kind for kind in kinds if kind != "F32")  # learned positions
        return ", ".join(f"{kind} {number}" for kind, number in counts.most_common())

    def reset(self) -> None:
        """Restart at the first position; `eval` then discards the cache."""
        self._llama.reset()

    def next_token(self, ids: Sequence[int]) -> int:
        """One evaluation, which computes the logits of the last id only."""
        import llama_cpp  # noqa: PLC0415

        self._llama.eval(ids)
        logits = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Batches of at most 512 ids, each of which gets logits."""
        import llama_cpp  # noqa: PLC0415

        context, rows = self._llama.ctx, []
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            batch.n_tokens = len(part)
            for row, token in enumerate(part):
                batch.token[row], batch.pos[row], batch.logits[row] = token, start + row, 1
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
            if code := llama_cpp.llama_decode(context, batch):
                raise RuntimeError(f"llama_decode returned {code}")
            found = llama_cpp.llama_get_logits(context)
            rows.append(np.ctypeslib.as_array(found, (len(part), self._vocab_size)).copy())
        llama_cpp.llama_batch_free(batch)
        return np.concatenate(rows)


def _importance_matrix(mean_squares: dict[str, Array]) -> Any:
    """The C array of (name, values, size) that `llama_model_quantize` reads, ended by no name."""
    import llama_cpp  # noqa: PLC0415

    entries = (llama_cpp.llama_model_imatrix_data * (len(mean_squares) + 1))()
    for entry, (name, values) in zip(entries, mean_squares.items(), strict=False):
        _, layer, part = name.split(".")
        entry.name = f"blk.{layer}.{_PARTS[part]}.weight".encode()
        entry.data = (ctypes.c_float * len(values))(*values.tolist())
        entry.size = len(values)
    return entries


def _write_gguf(checkpoint: Checkpoint, path: Path) -> None:
    """Write matrices as float16 and the rest as float32, one tensor at a time."""
    import gguf  # noqa: PLC0415

    network = checkpoint.network
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(network.n_positions)
    writer.add_embedding_length(network.n_embd)
    writer.add_feed_forward_length(network.n_inner)
    writer.add_block_count(network.n_layer)
    writer.add_head_count(network.n_head)
    writer.add_layer_norm_eps(network.epsilon)
    writer.add_tokenizer_model("no_vocab")  # ids go in and out
    writer.add_vocab_size(network.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, network.n_layer)
    for name, tensor in checkpoint.stored.items():
        full = name if name.startswith("lm_head.") else f"transformer.{name}"
        kind = _kind(name, tensor.shape)
        size = int(np.prod(tensor.shape)) * kind.itemsize
        shape = tensor.shape[::-1] if _is_conv1d(name) else tensor.shape
        writer.add_tensor_info(names.get_name(full, (".weight", ".bias")), shape, kind, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in checkpoint.stored.items():
        array = tensor.read()
        array = array.T if _is_conv1d(name) else array
        writer.write_tensor_data(np.ascontiguousarray(array, _kind(name, tensor.shape)))
    writer.close()


def _is_conv1d(name: str) -> bool:
    """True for the weights that GPT-2 stores as (in, out)."""
    return ".c_" in name and name.endswith(".weight")


def _kind(name: str, shape: tuple[int, ...]) -> np.dtype[Any]:
    # As llama.cpp's own converter does for vectors and positions.
    return np.dtype(np.float32 if len(shape) == 1 or name == "wpe.weight" else np.float16)


def _of_type(file_type: str, *, importance: bool = False) -> type[_Llama]:
    """The engine for a file type of llama.cpp, such as `Q4_K_M`."""
    how = "an importance matrix from the calibration text" if importance else "no importance matrix"
    members = {
        "label": f"llama.cpp {file_type}{', imatrix' if importance else ''}",
        "file_type": file_type,
        "importance": importance,
        "settings": (
            f"GGUF written with `gguf`, `llama_model_quantize` to {file_type} with {how}; {_HOW}"
        ),
    }
    return type(f"Llama{file_type}", (_Llama,), members)


def _pair(file_type: str) -> tuple[type[_Llama], type[_Llama]]:
    """The engines without and with an importance matrix."""
    return _of_type(file_type), _of_type(file_type, importance=True)


Q8_0 = _of_type("Q8_0")  # rounds to the nearest step, whatever the importance matrix
Q6_K, Q6_K_imatrix = _pair("Q6_K")
Q5_K_M, Q5_K_M_imatrix = _pair("Q5_K_M")
Q5_1, Q5_1_imatrix = _pair("Q5_1")
Q5_0, Q5_0_imatrix = _pair("Q5_0")
Q4_K_M, Q4_K_M_imatrix = _pair("Q4_K_M")
Q4_1, Q4_1_imatrix = _pair("Q4_1")
IQ4_NL, IQ4_NL_imatrix = _pair("IQ4_NL")
Q4_0, Q4_0_imatrix = _pair("Q4_0")
