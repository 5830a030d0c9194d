"""Loads an exported model and generates text with it."""

from issun.runtime.answer import Completion, Stream
from issun.runtime.conversation import Conversation
from issun.runtime.errors import (
    BundleError,
    BusyError,
    ContextError,
    ConversationError,
    IssunError,
    OutOfMemoryError,
    ParameterError,
    SamplingError,
)
from issun.runtime.generate import Segment, Timings
from issun.runtime.model import Model
from issun.runtime.prompt import Turn
from issun.runtime.sampling import SamplingParams

__all__ = [
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
    "SamplingError",
    "SamplingParams",
    "Segment",
    "Stream",
    "Timings",
    "Turn",
]
