"""The process of the server: its address, its signals, its end.

Guarantees: the address is taken before any engine starts; only loopback addresses are served without a token; SIGTERM
and Ctrl-C end the server with exit code 0, at any time: requests in progress get GRACE_S to finish, and are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette

from evidence.errors import BadInput
from orchestration.streams import say

GRACE_S = 10
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Address:
    """`token_env`: the environment variable that holds the clients' token."""

    host: str
    port: int
    token_env: str | None = None

    def token(self) -> str:
        """The token, empty for none. Raises BadInput if it is not set, or needed and not given."""
        if self.token_env is not None:
            token = os.environ.get(self.token_env, "")
            if not token:
                raise BadInput(f"--token-env {self.token_env}: that variable is not set; set it to the clients' token")
            return token
        if not self._is_loopback():
            raise BadInput(
                f"--host {self.host}: other machines reach it, and anyone there could ask; name a variable that holds "
                "a token with --token-env, or serve 127.0.0.1"
            )
        return ""

    def _is_loopback(self) -> bool:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def bind(self) -> socket.socket:
        """A socket at the address, which does not listen yet. Raises BadInput."""
        if not 0 <= self.port <= 65535:
            raise BadInput(f"--port {self.port}: must be from 0 (a free one) to 65535")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            bound = socket.socket(family, kind, protocol)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadInput(f"--host {self.host} --port {self.port}: {reason}; give a free address") from None
        return bound


class _Server(uvicorn.Server):
    """`ready`: called once clients are served."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


class Stop:
    """The signals that end the server, in a `with` block: they cancel whatever the block does before it serves, and
    the block then ends without an error. To be used in the main thread, by the event loop's main task."""

    def __init__(self, grace_s: int = GRACE_S):
        self._grace_s = grace_s
        self._serves = self._requested = False

    def __enter__(self) -> Stop:
        self._main = asyncio.current_task()
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        return kind is asyncio.CancelledError and self._requested

    def listen(self) -> None:
        """Listen, again after a library has installed handlers of its own."""
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._received)

    def _received(self) -> None:
        self._requested = True
        if self._main is not None and not self._serves:  # otherwise uvicorn, which listens too, ends the server
            self._main.cancel()

    async def serve(self, app: Starlette, bound: socket.socket, name: str) -> None:
        """Serve until a signal arrives. `name`: of the model, for the line on stderr."""
        host, port, *_ = bound.getsockname()
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=self._grace_s)
        self._serves = True
        await _Server(config, lambda: say(f"serving {name} at {url}")).serve([bound])
