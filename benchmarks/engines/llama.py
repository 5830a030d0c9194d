"""llama.cpp through llama-cpp-python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from issun.benchmarks.engines.greedy import GreedyEngine

if TYPE_CHECKING:
    from issun.export.checkpoint import Checkpoint

_HOW = (
    "`Llama.eval` with `n_batch=512`, flash attention (llama.cpp's default choice), float16 KV "
    "cache, memory-mapped; build without AMX, whose kernels crash on some virtual machines."
)


class _Llama(GreedyEngine):
    """Written as GGUF with the `gguf` package; quantized and run by llama.cpp."""

    packages = ("llama-cpp-python", "gguf")
    file_type: ClassVar[str]
    _llama: Any
    _vocab_size: int

    @property
    def _path(self) -> Path:
        return self.folder / "model.gguf"

    def convert(self) -> None:
        """Write a float16 file, and quantize it."""
        import llama_cpp  # noqa: PLC0415

        from issun.export.checkpoint import open_checkpoint  # noqa: PLC0415

        whole = self.folder / "float16.gguf"
        _write_gguf(open_checkpoint(self.checkpoint), whole)
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{self.file_type}")
        code = llama_cpp.llama_model_quantize(
            bytes(whole), bytes(self._path), ctypes.byref(options)
        )
        whole.unlink()
        if code:
            raise RuntimeError(f"llama_model_quantize returned {code}")

    def load(self, threads: int) -> None:
        """Load the quantized file."""
        from llama_cpp import Llama  # noqa: PLC0415

        self._llama = Llama(
            str(self._path),
            n_ctx=0,  # the model's context
            n_batch=512,
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

    def reset(self) -> None:
        """Restart at the first position; `eval` then discards the cache."""
        self._llama.reset()

    def next_token(self, ids: Sequence[int]) -> int:
        """One evaluation, which computes the logits of the last id only."""
        import llama_cpp  # noqa: PLC0415

        self._llama.eval(ids)
        logits = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


def _write_gguf(checkpoint: Checkpoint, path: Path) -> None:
    """Write matrices as float16 and the rest as float32, one tensor at a time."""
    import gguf  # noqa: PLC0415

    config = checkpoint.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_tokenizer_model("no_vocab")  # ids go in and out
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, tensor in checkpoint.tensors.items():
        full = name if name.startswith("lm_head.") else f"transformer.{name}"
        kind = _kind(name, tensor.shape)
        size = int(np.prod(tensor.shape)) * kind.itemsize
        shape = tensor.shape[::-1] if _is_conv1d(name) else tensor.shape
        writer.add_tensor_info(names.get_name(full, (".weight", ".bias")), shape, kind, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in checkpoint.tensors.items():
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


class LlamaQ8(_Llama):
    """Q8_0."""

    label, file_type = "llama.cpp Q8_0", "Q8_0"
    settings = f"GGUF written with `gguf`, `llama_model_quantize` to Q8_0; {_HOW}"


class LlamaQ4(_Llama):
    """Q4_0."""

    label, file_type = "llama.cpp Q4_0", "Q4_0"
    settings = (
        "GGUF written with `gguf`, `llama_model_quantize` to Q4_0, which by default makes the tied "
        f"embedding and head Q6_K; {_HOW}"
    )
