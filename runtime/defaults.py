"""The default sampling parameters of a bundle."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from issun.runtime.decoding.beams import HONOURED, BeamParams
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import BundleError, ParameterError
from issun.runtime.manifest import Manifest

SWITCHED = (  # filters that their first field switches on
    ("dynatemp_range", "dynatemp_exponent"),
    ("xtc_probability", "xtc_threshold"),
    (
        "dry_multiplier",
        "dry_base",
        "dry_allowed_length",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
    ),
    ("mirostat", "mirostat_tau", "mirostat_eta"),
)


def make_params(manifest: Manifest, **changes: Any) -> SamplingParams:
    """Return the bundle's default sampling with `changes`; raises BundleError for a bad default.

    An explicit `max_new_tokens` lowers the bundle's `min_new_tokens` if that is larger. Raises
    ParameterError for a bad change, and for one of the details of a filter that is off.
    """
    try:
        defaults = SamplingParams(**{k: _to_tuples(v) for k, v in manifest.sampling.items()})
    except (TypeError, ParameterError) as error:
        raise BundleError(
            "The manifest's sampling defaults are invalid: {reason}", reason=error
        ) from error
    most = changes.get("max_new_tokens")
    if isinstance(most, int) and most > 0:
        changes.setdefault("min_new_tokens", min(defaults.min_new_tokens, most))
    params = replace(defaults, **changes) if changes else defaults
    for switch, *others in SWITCHED:
        given = [name for name in others if name in changes]
        if given and not getattr(params, switch):
            raise ParameterError(
                "{name} is {value!r}, which has no effect while {switch} is 0: set {switch} too.",
                name=given[0],
                value=changes[given[0]],
                switch=switch,
            )
    return params


def make_beam_params(manifest: Manifest, **changes: Any) -> BeamParams:
    """Return beam search with `changes` and the bundle's defaults for what beam search honours.

    Raises as `make_params` does, and ParameterError if `changes` has what beam search does not.
    """
    known = {parameter.name for parameter in fields(SamplingParams)}
    shared = {name: value for name, value in changes.items() if name in known}
    defaults = make_params(manifest, **shared)
    return BeamParams(**{name: getattr(defaults, name) for name in HONOURED} | changes)


def _to_tuples(value: Any) -> Any:
    """Convert JSON's lists to tuples."""
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value
