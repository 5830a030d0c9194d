"""The fields of a config.json, each checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from issun.export.errors import CheckpointError
from issun.export.network import ACTIVATIONS, FULL, Rotary
from issun.export.rotary import KINDS

_MAX_LAYERS, _MAX_SIZE = 10_000, 10**7  # a damaged config must not ask for absurd amounts
_MAX_THETA = 1e12
_LAYERS = ("n_layer", "num_hidden_layers", "max_window_layers")
_LOCAL = "sliding_attention"


class Fields:
    """The fields of a config.json; every method checks them.

    Methods that read or refuse a field raise CheckpointError with its name and value. An absent
    field has the default of its family.
    """

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self.raw, self.path = raw, path

    def with_defaults(self, defaults: Mapping[str, Any]) -> Fields:
        """These fields, with `defaults` for absent ones; null stays null."""
        return Fields({**defaults, **self.raw}, self.path)

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """An integer of at least `least`; null is as good as absent if there is a `default`."""
        value = self.raw.get(key)
        value = default if value is None and default is not None else value
        limit = _MAX_LAYERS if key in _LAYERS else _MAX_SIZE
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= limit:
            raise CheckpointError(
                "{path}: {key} is {value!r}, it must be an integer from {least} to {limit:,}.",
                path=self.path,
                key=key,
                value=value,
                least=least,
                limit=limit,
            )
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(
                "{path}: {key} is {value!r}, it must be true or false.",
                path=self.path,
                key=key,
                value=value,
            )
        return value

    def number(self, key: str, default: float | None = None, *, most: float) -> float:
        """A number above 0 and at most `most`."""
        value = self.raw.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise CheckpointError(
                "{path}: {key} is {value!r}, it must be a number between 0 and {most:g}.",
                path=self.path,
                key=key,
                value=value,
                most=most,
            )
        return float(value)

    def activation(self, key: str, default: str) -> str:
        """An activation function that the graph supports."""
        name = str(self.raw.get(key, default))
        if name not in ACTIVATIONS:
            raise CheckpointError(
                "{path}: the activation function {name!r} is not supported; supported: {known}.",
                path=self.path,
                name=name,
                known=", ".join(ACTIVATIONS),
            )
        return name

    def refuse(self, key: str) -> None:
        """Raise because issun cannot export the field `key` with its value exactly."""
        raise CheckpointError(
            "{path}: {key} is {value!r}, which issun does not support.",
            path=self.path,
            key=key,
            value=self.raw.get(key),
        )

    def only(self, key: str, value: object) -> None:
        """Raise unless the field `key` is absent, null, or `value`."""
        if self.raw.get(key) not in (None, value):
            self.refuse(key)

    def rotary(
        self, head: int, *, theta: str = "rope_theta", share: tuple[str, float] | None = None
    ) -> Rotary:
        """Rotary position embedding for heads of width `head`.

        `theta` names the field of the base. `share` is the field of the fraction of channels that
        rotate, and its default; without it all channels rotate. transformers 5 writes both into
        rope_parameters, together with the fields of rope_scaling.
        """
        key = "rope_parameters" if self.raw.get("rope_parameters") else "rope_scaling"
        scaling = self._scaling(key)
        base = self._shared(scaling, "rope_theta", theta, 10_000.0, most=_MAX_THETA)
        if share is None:
            self.only("partial_rotary_factor", 1)
            scaling.only("partial_rotary_factor", 1)
            fraction = 1.0
        else:
            fraction = self._shared(scaling, "partial_rotary_factor", *share, most=1)
        dim = int(head * fraction)
        if dim % 2 or not dim:
            raise CheckpointError(
                "{path}: {dim} of the {head} channels of each head rotate{cause}; issun supports "
                "even numbers.",
                path=self.path,
                dim=dim,
                head=head,
                cause=f" ({share[0]} {fraction})" if share else "",
            )
        trained = self.integer("max_position_embeddings")
        found = Rotary(dim=dim, theta=base, scaling=scaling.raw, trained=trained)
        if found.kind == "yarn" and base <= 1:
            self.refuse(theta)
        return found

    def _scaling(self, key: str) -> Fields:
        """The checked fields that describe the scaling of rotary positions, without nulls."""
        raw = self.raw.get(key) or {}
        if not isinstance(raw, Mapping) or any(isinstance(v, Mapping) for v in raw.values()):
            self.refuse(key)
        scaling = Fields({k: v for k, v in raw.items() if v is not None}, self.path)
        kinds = [scaling.raw[name] for name in ("rope_type", "type") if name in scaling.raw]
        kind = str(kinds[0]) if kinds else "default"
        if kind not in KINDS or kinds[:1] != kinds[-1:] or (not kinds and "factor" in scaling.raw):
            self.refuse(key)
        needed, optional = KINDS[kind]
        for name in (*needed, *(name for name in optional if name in scaling.raw)):
            scaling.number(name, most=_MAX_SIZE)
        scaling.flag("truncate", default=True)
        low, high = (scaling.raw.get(f"{end}_freq_factor", end) for end in ("low", "high"))
        if kind == "llama3" and low >= high:
            self.refuse(key)
        return scaling

    def _shared(
        self, scaling: Fields, inner: str, outer: str, default: float, *, most: float
    ) -> float:
        """The number `inner` of rope_parameters, or else `outer`; refused if they differ."""
        place, name = (scaling, inner) if inner in scaling.raw else (self, outer)
        value = place.number(name, default, most=most)
        self.only(inner, value)
        self.only(outer, value)
        return value

    def windows(self, default: Sequence[bool], *, on: bool) -> tuple[int, ...]:
        """The window of each layer, empty if all attend to all positions.

        `default` marks the local layers of a config without `layer_types`. Unless `on`, local
        layers are refused.
        """
        types = self.raw.get("layer_types")
        known = [_LOCAL, "full_attention"]
        if types is None:
            types = [_LOCAL if on and local else "full_attention" for local in default]
        if not isinstance(types, list) or len(types) != len(default):
            self.refuse("layer_types")
        if any(kind not in known[not on :] for kind in types):
            self.refuse("layer_types")
        if _LOCAL not in types:
            return ()
        width = self.integer("sliding_window")
        return tuple(width if kind == _LOCAL else FULL for kind in types)
