"""Uvicorn around the application."""

import socket

import uvicorn

from service import logs
from service.api.app import create_app
from service.settings import Settings

# Open event streams hold the server on TERM; after this they are cut, and clients resume.
_GRACE_SECONDS = 3


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until told to stop."""
    logs.configure("api")
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=None if listener is None else [listener])
