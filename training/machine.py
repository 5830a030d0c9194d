"""The training device of this machine, its precision, and the optimizer that fits."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from issun.runtime.errors import Notify
from issun.training.errors import TrainingError

_WEIGHT_AND_GRADIENT, _ADAM_STATE = 4 + 4, 8  # bytes per parameter
_CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # CPU flags of x86 and ARM


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The training device, its features, and its free memory in bytes."""

    device: str
    devices: int
    bf16: bool
    tf32: bool
    free_bytes: int
    bitsandbytes: bool

    @property
    def precision(self) -> str:
        """The type of the arithmetic; weights are always float32."""
        return "bfloat16" if self.bf16 else "float32"


def find_machine() -> Machine:
    """Detect a GPU through torch, and the CPU's features."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return Machine(
            device="cuda",
            devices=torch.cuda.device_count(),
            bf16=torch.cuda.is_bf16_supported(including_emulation=False),
            tf32=torch.version.cuda is not None and torch.cuda.get_device_capability() >= (8, 0),
            free_bytes=torch.cuda.mem_get_info()[0],
            bitsandbytes=find_spec("bitsandbytes") is not None,
        )
    device = "mps" if torch.backends.mps.is_available() else "cpu"
    return Machine(
        device=device,
        devices=1,
        bf16=device == "cpu" and _cpu_has_bf16(),
        tf32=False,
        free_bytes=psutil.virtual_memory().available,
        bitsandbytes=False,
    )


def choose_optimizer(name: str, parameters: int, machine: Machine, notify: Notify) -> str:
    """Resolve the optimizer `name` for a model with `parameters`; `notify` reports the choice.

    `auto` means adamw_bnb_8bit on a GPU with bitsandbytes, else adamw if weights, gradients and its
    state fit into free memory, else adafactor. Raises TrainingError if adamw_bnb_8bit cannot run.
    """
    can_8bit = machine.device == "cuda" and machine.bitsandbytes
    if name == "adamw_bnb_8bit" and not can_8bit:
        raise TrainingError(
            "The optimizer adamw_bnb_8bit needs an NVIDIA GPU and bitsandbytes: "
            "choose adamw or adafactor."
        )
    needed = parameters * (_WEIGHT_AND_GRADIENT + _ADAM_STATE)
    sizes = {"needed": needed / 1e9, "free": machine.free_bytes / 1e9}
    if name != "auto":
        notify("Optimizer: {name}, as requested.", name=name)
        return name
    if can_8bit:
        notify("Optimizer: adamw_bnb_8bit, since a GPU and bitsandbytes are available.")
        return "adamw_bnb_8bit"
    if needed <= machine.free_bytes:
        notify(
            "Optimizer: adamw, since it needs {needed:.1f} GB of memory and {free:.1f} GB are "
            "free.",
            **sizes,
        )
        return "adamw"
    notify(
        "Optimizer: adafactor, since adamw needs {needed:.1f} GB of memory and only {free:.1f} GB "
        "are free.",
        **sizes,
    )
    return "adafactor"


def _cpu_has_bf16() -> bool:
    """True if the kernel reports bfloat16 instructions of the CPU; False if unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _CPU_BF16.isdisjoint(flags.split())
