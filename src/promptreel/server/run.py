"""The server's life: open a port, serve until a signal comes, end in order."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from promptreel.errors import Interrupted, UserError

TOKEN = "PROMPTREEL_TOKEN"  # noqa: S105 - a name, not a secret
"""Environment variable with the token."""
GRACE = 10
"""Seconds that requests under way have to end after the first signal; a second signal does not wait."""


def read_token(file: Path | None) -> str | None:
    """Return the token that requests must bring, from a file or the environment; ``None`` without one.

    A token is no argument of a command: other users of the machine could read it. Raises ``UserError`` for a file that
    cannot be read and a token that is not one word of ASCII characters.
    """
    given = os.environ.get(TOKEN)
    if file is not None:
        try:
            given = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the token in {file}: {error}") from error
    if given is None:
        return None
    token = given.strip()
    if not token or not token.isascii() or len(token.split()) > 1:
        raise UserError(f"the token in {file or TOKEN} must be one word of ASCII characters")
    return token


def is_loopback(host: str) -> bool:
    """Return True for a host that only this machine reaches."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def open_port(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ``UserError`` for a port in use and a host that is not this machine's."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror}") from error


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM. Raises ``Interrupted`` then."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)  # uvicorn ends in order, then sends itself the signal again
    uvicorn.Server(config).run(sockets=[listening])
    # A model call under way cannot be broken off: the process waits for it for a limited time.
    last = threading.Timer(GRACE, os._exit, [Interrupted.exit_code])
    last.daemon = True
    last.start()
    raise Interrupted("stopped")
