"""The server's options and their defaults."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from numbers import Integral, Real

from issun.runtime.errors import check_range, check_switch, check_texts
from issun.server.errors import ServerError
from issun.server.origins import check_origin

_DAY = 86_400  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Addresses, limits and the API key.

    Raises ParameterError for a value out of range, and ServerError for an address, an origin or a
    key that cannot be used.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()  # host names, besides IP addresses, that requests may use
    allowed_origins: tuple[str, ...] = ()  # origins of other sites that may use the API
    slots: int | None = (
        None  # answers generated at the same time; None: as many as fit into `kv_memory`
    )
    drafting: int = 2  # answers in a step, up to which their next tokens are drafted; 0: never
    prefill_first: bool = False  # fill free slots before answers go on: more tokens/s, with pauses
    kv_memory: int | None = None  # bytes for all slots; None: a quarter of the free memory
    max_queue: int = 64  # waiting requests
    max_connections: int = 256
    max_body: int = 1 << 20  # bytes
    max_choices: int = 16  # answers per request
    # In seconds; all but `grace` may be infinite.
    body_timeout: float = 30.0  # for a request's headers, and again for its body, to arrive
    keep_alive: float = 5.0  # between keep-alive comments in a stream without events
    deadline: float = 600.0  # from the request to the end of its answer
    grace: float = 3.0  # for running answers to finish when the server stops

    def __post_init__(self) -> None:
        """Validate; a server that other computers can reach needs an API key."""
        for name in ("max_queue", "max_connections", "max_body", "max_choices"):
            check_range(name, getattr(self, name), Integral, 1, math.inf)
        for name in ("slots", "kv_memory"):
            if (value := getattr(self, name)) is not None:
                check_range(name, value, Integral, 1, math.inf)
        check_range("drafting", self.drafting, Integral, 0, math.inf)
        check_switch("prefill_first", self.prefill_first)
        check_range("port", self.port, Integral, 0, 65535)
        for name in ("body_timeout", "keep_alive", "deadline"):
            check_range(name, getattr(self, name), Real, 0, math.inf, exclusive=True)
        check_range("grace", self.grace, Real, 0, _DAY)
        check_texts("allowed_hosts", self.allowed_hosts)
        check_texts("allowed_origins", self.allowed_origins)
        if self.api_key is not None and not self.api_key.isprintable():
            raise ServerError("The API key has characters that an HTTP header cannot carry.")
        if self.api_key is not None and not self.api_key.strip():
            raise ServerError("The API key is empty.")
        for origin in self.allowed_origins:
            check_origin(origin)
        if not is_loopback(self.host) and self.api_key is None:
            raise ServerError(
                "{host} can be reached from other computers: set an API key with ISSUN_API_KEY "
                "or --api-key-file, or listen on 127.0.0.1.",
                host=self.host,
            )


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
