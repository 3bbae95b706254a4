"""The Celery application. A message says that there is work on a queue; SQL is the truth."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from service.domain.errors import Unavailable
from service.domain.job_kinds import JOBS_QUEUE
from service.queue import filesystem_transport
from service.settings import Settings

EXECUTE = "fairtune.execute"
QUEUE = JOBS_QUEUE

MAX_MESSAGES = 16
"""Number of messages in a queue from which on no more are sent. One is enough for a worker to work
on all queued jobs, and workers beyond this number find jobs by themselves."""

_BROKER_ERRORS = (KombuError, OperationalError, RedisError, OSError)


def folder_of(settings: Settings) -> Path | None:
    """Return the directory of the filesystem transport; None if the broker is a server."""
    url = urlsplit(settings.broker_url)
    return Path(unquote(url.path)) if url.scheme == "file" else None


def make_app(settings: Settings) -> Celery:
    folder = folder_of(settings)
    options: dict[str, Any]
    if folder is None:
        url = settings.broker_url
        # Bounded waits, so that a request fails clearly while the broker is unreachable.
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
        # Acknowledged on receipt: a lost message only delays a job, and a doubled one finds none.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=folder is None,
        task_publish_retry=False,
    )
    return app


def notify(app: Celery, queue: str) -> None:
    """Send a message that says there is work on `queue`; only after the commit that queued the job.

    Sends none while MAX_MESSAGES wait there, so that they do not pile up in a queue that no worker
    serves. Raises Unavailable.
    """
    try:
        with app.producer_pool.acquire(block=True) as producer:
            if producer.channel.queue_declare(queue=queue).message_count < MAX_MESSAGES:
                app.send_task(EXECUTE, queue=queue, producer=producer)
    except _BROKER_ERRORS as error:
        raise Unavailable("the broker cannot be reached", error) from error


def check(app: Celery) -> None:
    """Raise Unavailable if the broker cannot be reached."""
    folder = app.conf.broker_transport_options.get("data_folder_in")
    if folder is not None and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise Unavailable("the broker's folder is missing or may not be written", folder)
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
    except _BROKER_ERRORS as error:
        raise Unavailable("the broker cannot be reached", error) from error
