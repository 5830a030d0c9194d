"""The cos and sin tables of rotary position embedding, as transformers computes them.

Source: `ROPE_INIT_FUNCTIONS` in transformers 4.57; Su et al., "RoFormer" (2021); Peng et al.,
"YaRN" (2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issun.export.network import Rotary

Array = NDArray[np.float32]

_TRAINED = "original_max_position_embeddings"
# The required and the optional fields of each kind of scaling. "dynamic" equals the default up to
# the trained length, and a bundle's context is never longer.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "dynamic": (("factor",), ()),
    "linear": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", _TRAINED), ()),
    "yarn": (
        ("factor",),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", _TRAINED),
    ),
}
_F32 = np.float32


def cos_sin(rotary: Rotary, head_dim: int, positions: int) -> tuple[Array, Array]:
    """The tables of cos and sin, each (positions, head_dim / 2).

    Channels that do not rotate have cos 1 and sin 0. Every step is in float32, as in transformers:
    at position 8,192 one bit of a frequency changes the angle by 5e-4.
    """
    frequency, factor = frequencies(rotary)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequency
    cos = np.ones((positions, head_dim // 2), np.float32)
    sin = np.zeros((positions, head_dim // 2), np.float32)
    cos[:, : rotary.dim // 2] = np.cos(angles) * _F32(factor)
    sin[:, : rotary.dim // 2] = np.sin(angles) * _F32(factor)
    return cos, sin


def frequencies(rotary: Rotary) -> tuple[Array, float]:
    """The radians per position of each pair of channels, and the factor of cos and sin.

    Raises ValueError for an unknown kind of scaling.
    """
    # torch rounds the power in float64; numpy's float32 power is often one bit off.
    exponents = np.arange(0, rotary.dim, 2, dtype=np.float32) / _F32(rotary.dim)
    powers = (rotary.theta ** exponents.astype(np.float64)).astype(np.float32)
    plain: Array = _F32(1) / powers
    scaling = rotary.scaling
    match rotary.kind:
        case "default" | "dynamic":
            return plain, 1.0
        case "linear":
            return plain / _F32(scaling["factor"]), 1.0
        case "llama3":
            return _llama3(plain, scaling), 1.0
        case "yarn":
            return _yarn(plain, powers, rotary), _attention_factor(scaling)
    raise ValueError(f"unknown scaling of rotary positions: {rotary.kind}")


def _llama3(plain: Array, scaling: Mapping[str, Any]) -> Array:
    """Divide low frequencies by the factor, keep high ones, and interpolate between them."""
    factor, trained = scaling["factor"], scaling[_TRAINED]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    # torch divides a number by a tensor as number times reciprocal: one bit apart at times.
    wavelength = _F32(1) / plain * _F32(2 * math.pi)
    smooth = (_F32(1) / wavelength * _F32(trained) - _F32(low)) / _F32(high - low)
    between = (1 - smooth) * plain / _F32(factor) + smooth * plain
    short = np.where(wavelength < trained / high, plain, between)
    found: Array = np.where(wavelength > trained / low, plain / _F32(factor), short)
    return found


def _yarn(plain: Array, powers: Array, rotary: Rotary) -> Array:
    """Keep high frequencies, divide low ones by the factor, with a linear ramp in between."""
    scaling, dim = rotary.scaling, rotary.dim
    trained = scaling.get(_TRAINED) or rotary.trained

    def channel(rotations: float) -> float:
        """The channel, as a fraction, that makes so many rotations within the trained length."""
        return dim * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(rotary.theta))

    low, high = channel(scaling.get("beta_fast") or 32), channel(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = _F32(high - low or 0.001)
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - _F32(low)) / width, 0, 1)
    kept = 1 - ramp
    interpolated = _F32(1) / (_F32(scaling["factor"]) * powers)
    found: Array = interpolated * (1 - kept) + plain * kept
    return found


def _attention_factor(scaling: Mapping[str, Any]) -> float:
    """YaRN's factor of cos and sin; attention scores are scaled by its square."""
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])

    def factor_of(mscale: float) -> float:
        factor = scaling["factor"]
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    one, all_dims = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return factor_of(one) / factor_of(all_dims) if one and all_dims else factor_of(1.0)
