"""The Celery task and the worker process around it."""

import os
import secrets
import socket
import warnings
from functools import partial
from typing import Any

from celery import Celery, signals
from celery.platforms import SecurityWarning

from service.artifacts import ArtifactStore
from service.domain.job_kinds import names_in
from service.observability import logs
from service.ops import container_health, startup
from service.queue import celery_app
from service.queue.sweep import Sweeper
from service.settings import Settings
from service.store.database import Database
from worker.supervision import job_directory
from worker.supervision.job_loop import JobLoop
from worker.supervision.retry import Shutdown


def make_worker(settings: Settings) -> tuple[Celery, JobLoop]:
    """Return the Celery application with its task, and the loop that works on jobs.

    The pool is one thread: a program is a child process anyway, and so the signal that tells the
    worker to stop and the supervisor that must act on it live in one process.
    """
    app = celery_app.make_app(settings)
    database = Database(settings.database_url)
    store = ArtifactStore(settings.artifacts_url)
    shutdown = Shutdown()
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    kinds = names_in(settings.queues)

    notify = partial(celery_app.notify, app)
    loop = JobLoop(settings, database, store, shutdown, owner, kinds, notify)
    beat = partial(container_health.beat, settings.data_dir)
    sweeper = Sweeper(settings, database, store, app, beat)

    @app.task(name=celery_app.EXECUTE, bind=False, shared=False)  # type: ignore[untyped-decorator]  # celery has no types
    def execute(*_: Any) -> None:  # messages of version 0.1.0 name a job
        loop.work()

    def stop(**_: Any) -> None:
        shutdown.request()

    def start(**_: Any) -> None:
        job_directory.remove_abandoned(settings.jobs_dir)
        sweeper.start()
        loop.start()

    # Not weak: these functions have no other owner.
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_ready.connect(start, weak=False)
    return app, loop


def _as_it_is(**_: Any) -> None:
    """A receiver of this signal keeps Celery from setting up logging of its own."""


def run_worker(settings: Settings) -> None:
    """Wait for what is needed, then work until told to stop (TERM or INT)."""
    logs.configure("worker", settings.log_format, settings.log_level)
    startup.wait_for("worker", settings)
    signals.setup_logging.connect(_as_it_is, weak=False)
    # It warns that root could be made to run pickled messages: ours are JSON and nothing else.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app, loop = make_worker(settings)
    on_files = celery_app.folder_of(settings) is not None
    arguments = ["--quiet", "worker", "--pool=threads", "--concurrency=1", "--loglevel=WARNING"]
    arguments += [f"--queues={','.join(settings.queues)}", f"--hostname=fairtune-{os.getpid()}@%h"]
    # Workers need not know of each other; and gossip has kept a worker from coming back after its
    # broker did.
    arguments += ["--without-gossip", "--without-mingle"]
    if on_files:  # the filesystem transport has no broadcast
        arguments += ["--without-heartbeat"]
    try:
        app.worker_main(arguments)
    finally:  # Celery waits for its own thread alone
        loop.stop()
