"""Uvicorn around the application."""

import resource
import socket

import uvicorn

from service.api.app import create_app
from service.api.middleware.header_timeout import bounded_protocol
from service.observability import logs
from service.ops import startup
from service.settings import Settings
from service.usecases import api_keys

# Open event streams hold the server on TERM; after this they are cut, and clients resume.
_GRACE_SECONDS = 3
# Far more than an API for a team has, even if each follows a run's events.
_MOST_CONNECTIONS = 2000


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Wait for what is needed, then serve until told to stop. Raises RefusedToStart, SystemExit."""
    logs.configure("api", settings.log_format, settings.log_level)
    startup.wait_for("api", settings)
    app = create_app(settings)
    api_keys.check_guarded(app.state.context.database, settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # through ours
        log_level="warning",
        ws="none",
        http=bounded_protocol(settings.request_timeout_seconds),
        limit_concurrency=_most_connections(),
        access_log=False,  # service.api.middleware.request_log knows more of a request
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=None if listener is None else [listener])


def _most_connections() -> int:
    """Connections above this are answered 503: files, the database and the broker need room too.

    A process that has no descriptor left fails in the middle of requests that it has taken.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if allowed < 0 else min(_MOST_CONNECTIONS, allowed // 2)
