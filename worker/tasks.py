"""The Celery task, thin: claim, supervise, finish. And the worker process around it."""

import contextlib
import os
import secrets
import socket
import time
import warnings
from functools import partial
from typing import Any

import structlog
from celery import Celery, signals
from celery.platforms import SecurityWarning

from service.artifacts import ArtifactStore
from service.domain.errors import Unavailable
from service.domain.job_kinds import job_kind, names_in
from service.domain.states import JobStatus
from service.observability import logs
from service.ops import container_health, startup
from service.queue import celery_app
from service.queue.sweep import Sweeper
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from worker.supervision import job_directory
from worker.supervision.retry import Shutdown
from worker.supervision.supervisor import Supervisor

log = structlog.get_logger()


def make_worker(settings: Settings) -> Celery:
    """The Celery application with the task and what a worker process needs beside it.

    The pool is one thread: a program is a child process anyway, and so the signal that tells the
    worker to stop and the supervisor that must act on it live in one process.
    """
    app = celery_app.make_app(settings)
    database = Database(settings.database_url)
    store = ArtifactStore(settings.artifacts_url)
    shutdown = Shutdown()
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    beat = partial(container_health.beat, settings.data_dir)
    kinds = names_in(settings.queues)
    idle_since: float | None = None

    def idle_seconds() -> float:
        since = idle_since  # another thread changes it
        return 0 if since is None else time.monotonic() - since

    sweeper = Sweeper(settings, database, store, app, beat, idle_seconds)

    @app.task(name=celery_app.EXECUTE, bind=False, shared=False)  # type: ignore[untyped-decorator]  # celery has no types
    def execute(job_id: str) -> None:
        nonlocal idle_since
        idle_since = None
        try:
            work(job_id)
        finally:
            idle_since = time.monotonic()

    def work(job_id: str) -> None:
        """Bring one job to its end. A job that is not to be had is nobody's error."""
        if shutdown.requested.is_set():
            return  # the job stays queued, and the sweep wakes another worker
        try:
            with database.write() as session:
                # Of a kind that is not this worker's where the message was sent to another queue,
                # or before the worker's queues were changed: the sweep sends one to its own.
                claim = jobs.claim(session, job_id, owner, settings.lease_seconds, kinds)
        except Unavailable as error:  # the same
            log.warning("not claimed", job_id=job_id, error=error.detail)
            return
        if claim is None:
            log.info("not claimed", job_id=job_id)
            return
        with structlog.contextvars.bound_contextvars(
            run_id=claim.run_id,
            job_id=claim.job_id,
            token=claim.token,
            request_id=claim.request_id,
        ):
            free = Supervisor(settings, database, store, claim, shutdown).run()
        if free:
            with contextlib.suppress(Unavailable):  # the sweep will do it
                _wake_again(database, app, claim.job_id)

    def stop(**_: Any) -> None:
        shutdown.request()

    def started(**_: Any) -> None:
        nonlocal idle_since
        idle_since = time.monotonic()
        job_directory.remove_abandoned(settings.jobs_dir)
        sweeper.start()

    # Not weak: these functions have no other owner.
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_ready.connect(started, weak=False)
    return app


def _wake_again(database: Database, app: Celery, job_id: str) -> None:
    """Wake a worker for a job that its attempt gave back. Raises Unavailable."""
    with database.write() as session:
        job = jobs.get(session, job_id)
        returned = job.status == JobStatus.QUEUED
        if returned:
            jobs.woken(session, job_id)
    if returned:
        try:
            celery_app.enqueue(app, job_id, job_kind(job.kind).queue)
        except Unavailable:
            with database.write() as session:
                jobs.not_woken(session, job_id)


def _as_it_is(**_: Any) -> None:
    """A receiver of this signal keeps Celery from setting up logging of its own."""


def run_worker(settings: Settings) -> None:
    """Wait for what is needed, then work until told to stop (TERM or INT)."""
    logs.configure("worker", settings.log_format, settings.log_level)
    startup.wait_for("worker", settings)
    signals.setup_logging.connect(_as_it_is, weak=False)
    # It warns that root could be made to run pickled messages: ours are JSON and nothing else.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app = make_worker(settings)
    on_files = celery_app.folder_of(settings) is not None
    arguments = ["--quiet", "worker", "--pool=threads", "--concurrency=1", "--loglevel=WARNING"]
    arguments += [f"--queues={','.join(settings.queues)}", f"--hostname=fairtune-{os.getpid()}@%h"]
    # Workers need not know of each other; and gossip has kept a worker from coming back after its
    # broker did.
    arguments += ["--without-gossip", "--without-mingle"]
    if on_files:  # the filesystem transport has no broadcast
        arguments += ["--without-heartbeat"]
    app.worker_main(arguments)
