"""Bundle -> a folder that chats on another computer without a network."""

from issun.kit.errors import KitError
from issun.kit.platforms import PLATFORMS, Target, make_targets
from issun.kit.writing import write_kit

__all__ = ["PLATFORMS", "KitError", "Target", "make_targets", "write_kit"]
