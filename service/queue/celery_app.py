"""The Celery application. A message is only a wake-up; SQL is the truth."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from service.domain.errors import Unavailable
from service.domain.job_kinds import JOBS_QUEUE
from service.queue import filesystem_transport
from service.settings import Settings

EXECUTE = "fairtune.execute"
QUEUE = JOBS_QUEUE


def folder_of(settings: Settings) -> Path | None:
    """The directory of the filesystem transport, or None where the broker is a server."""
    url = urlsplit(settings.broker_url)
    return Path(unquote(url.path)) if url.scheme == "file" else None


def make_app(settings: Settings) -> Celery:
    folder = folder_of(settings)
    options: dict[str, Any]
    if folder is None:
        url = settings.broker_url
        # Bounded waits, so that a request fails clearly while the broker is away.
        options = {
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "max_retries": 1,
        }
    else:
        url = f"{filesystem_transport.SCHEME}://localhost//"
        options = filesystem_transport.folders(folder)
    app = Celery("fairtune", broker=url, set_as_current=False)
    app.conf.update(
        broker_transport_options=options,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # Taken and acknowledged at once: a message lost is only a delay, and one that comes twice
        # finds the job claimed.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=folder is None,
        task_publish_retry=False,
    )
    return app


def enqueue(app: Celery, job_id: str, queue: str = QUEUE) -> None:
    """Wake a worker for `job_id`; only after the commit that queued it. Raises Unavailable."""
    try:
        app.send_task(EXECUTE, args=[job_id], queue=queue)
    except (KombuError, OperationalError, OSError) as error:
        raise Unavailable("the broker cannot be reached", error) from error


def check(app: Celery) -> None:
    """Raises Unavailable where the broker cannot be reached."""
    folder = app.conf.broker_transport_options.get("data_folder_in")
    if folder is not None and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise Unavailable("the broker's folder is missing or may not be written", folder)
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
    except (KombuError, OperationalError, OSError) as error:
        raise Unavailable("the broker cannot be reached", error) from error
