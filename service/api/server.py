"""Uvicorn around the application."""

import resource
import socket
from types import FrameType

import uvicorn

from service.api.app import create_app
from service.api.middleware.header_timeout import bounded_protocol
from service.artifacts.temporary import remove_abandoned
from service.observability import logs
from service.ops import startup
from service.ops.exit_deadline import exit_within
from service.settings import Settings
from service.usecases import api_keys

# Open event streams delay the shutdown; after this time they are closed, and clients resume.
_GRACE_SECONDS = 3
STOP_SECONDS = 10.0
"""Time from a signal to stop until the process has ended, whatever its threads do."""
# Far more than a team's API has, even if everybody follows a run's events.
_MAX_CONNECTIONS = 2000


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Wait for database and broker, then serve until stopped. Raises RefusedToStart, SystemExit."""
    logs.configure("api", settings.log_format, settings.log_level)
    startup.wait_for("api", settings)
    remove_abandoned()
    app = create_app(settings)
    api_keys.check_guarded(app.state.context.database, settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # our own configuration
        log_level="warning",
        ws="none",
        http=bounded_protocol(settings.request_timeout_seconds),
        limit_concurrency=_max_connections(),
        access_log=False,  # service.api.middleware.request_log logs more of a request
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )
    _Server(config).run(sockets=None if listener is None else [listener])


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Beyond streams, uvicorn and the interpreter wait for the threads of unfinished requests.
        exit_within(STOP_SECONDS)
        super().handle_exit(sig, frame)


def _max_connections() -> int:
    """Return the number of connections above which the answer is 503.

    Half of the file descriptors are for files, the database and the broker: a process without any
    left fails in the middle of accepted requests.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if descriptors < 0 else min(_MAX_CONNECTIONS, descriptors // 2)
