"""What this machine can train with: device, number format and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from issun.runtime.errors import Notify
from issun.training.errors import TrainingError

_WEIGHT_AND_GRADIENT, _ADAM_STATE = 4 + 4, 8  # bytes a parameter
_CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # as x86 and ARM name it


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The device that trains, and its free memory in bytes."""

    device: str
    devices: int
    bf16: bool
    tf32: bool
    free_bytes: int
    bitsandbytes: bool

    @property
    def precision(self) -> str:
        """The type of the arithmetic; the weights themselves are always float32."""
        return "bfloat16" if self.bf16 else "float32"


def find_machine() -> Machine:
    """Ask torch for a GPU, and the CPU for its features."""
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


def choose_optimizer(asked: str, parameters: int, machine: Machine, notify: Notify) -> str:
    """The optimizer for a model with so many parameters; `notify` is told which, and why.

    With `auto` it is adamw_bnb_8bit on a GPU with bitsandbytes, else adamw where weights,
    gradients and its state fit into the free memory, else adafactor. Raises TrainingError for
    adamw_bnb_8bit where it cannot run.
    """
    can_8bit = machine.device == "cuda" and machine.bitsandbytes
    if asked == "adamw_bnb_8bit" and not can_8bit:
        raise TrainingError(
            "The optimizer adamw_bnb_8bit needs an NVIDIA GPU and bitsandbytes: "
            "choose adamw or adafactor."
        )
    needed = parameters * (_WEIGHT_AND_GRADIENT + _ADAM_STATE)
    sizes = {"needed": needed / 1e9, "free": machine.free_bytes / 1e9}
    if asked != "auto":
        notify("Optimizer: {name}, as asked.", name=asked)
        return asked
    if can_8bit:
        notify("Optimizer: adamw_bnb_8bit, since there are a GPU and bitsandbytes.")
        return "adamw_bnb_8bit"
    if needed <= machine.free_bytes:
        notify(
            "Optimizer: adamw, since the {needed:.1f} GB that it needs fit into the {free:.1f} GB "
            "of free memory.",
            **sizes,
        )
        return "adamw"
    notify(
        "Optimizer: adafactor, since adamw needs {needed:.1f} GB and {free:.1f} GB of memory are "
        "free.",
        **sizes,
    )
    return "adafactor"


def _cpu_has_bf16() -> bool:
    """True where the kernel says that the CPU multiplies bfloat16 itself; false where unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _CPU_BF16.isdisjoint(flags.split())
