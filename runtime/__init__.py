"""Loads an exported model and generates text with it."""

from issun.runtime.adapter import Adapter
from issun.runtime.conversation import Conversation
from issun.runtime.decoding.answer import Completion, Stream
from issun.runtime.decoding.beams import BeamParams
from issun.runtime.decoding.generate import Segment, Timings
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import (
    AdapterError,
    BundleError,
    BusyError,
    ContextError,
    ConversationError,
    IssunError,
    OutOfMemoryError,
    ParameterError,
    SamplingError,
)
from issun.runtime.model import Model
from issun.runtime.scores import RankedContinuation, TextScore
from issun.runtime.text.turn import Turn

__all__ = [
    "Adapter",
    "AdapterError",
    "BeamParams",
    "BundleError",
    "BusyError",
    "Completion",
    "ContextError",
    "Conversation",
    "ConversationError",
    "IssunError",
    "Model",
    "OutOfMemoryError",
    "ParameterError",
    "RankedContinuation",
    "SamplingError",
    "SamplingParams",
    "Segment",
    "Stream",
    "TextScore",
    "Timings",
    "Turn",
]
