"""Starts a program as a child process, ships what it says and makes, keeps the lease, stops it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from service.artifacts import ArtifactStore
from service.domain.errors import NotFound, Unavailable
from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, FailureEvent
from service.domain.states import FailureReason, JobRequest, JobStatus
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Claim, Fenced
from worker import job_directory
from worker.shipper import Shipper

log = structlog.get_logger()
T = TypeVar("T")

_LOG_SECONDS = 5.0
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)

# A program gets the machine's environment without what could open the database, the broker or the
# store. HF_TOKEN stays: it is how a program reaches a gated base model.
_SECRET_PREFIXES = (
    "FAIRTUNE_",
    "AWS_",
    "PG",
    "POSTGRES",
    "REDIS",
    "CELERY",
    "DATABASE_",
    "BROKER_",
)
_SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "API_KEY", "CREDENTIAL")
_KEPT = frozenset({"HF_TOKEN"})


def program_environment(environment: dict[str, str]) -> dict[str, str]:
    """The environment for a program: `environment` without the service's settings and secrets."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT
        or not (
            name.startswith(_SECRET_PREFIXES) or any(word in name.upper() for word in _SECRET_WORDS)
        )
    }
    return kept | {"PYTHONUNBUFFERED": "1"}


class Supervisor:
    """One attempt at one job. `run` returns when the attempt's outcome is recorded.

    The lease is renewed on a thread of its own, on which nothing slow ever runs.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        claim: Claim,
        stopping: threading.Event,
    ) -> None:
        self.settings = settings
        self.database = database
        self.store = store
        self.claim = claim
        self.stopping = stopping
        self.directory = job_directory.path_of(settings.jobs_dir, claim)
        self.shipper = Shipper(database, store, claim, self.directory)
        self._request: JobRequest | None = None
        self._fenced = threading.Event()
        self._ended = threading.Event()

    def run(self) -> None:
        renewer = threading.Thread(target=self._keep_lease, name="lease", daemon=True)
        renewer.start()
        try:
            self._attempt()
        except Fenced:
            log.warning("the job is no longer this worker's")
        except Exception:
            log.exception("the supervisor failed")
            with contextlib.suppress(Fenced, Unavailable):
                self.shipper.ship_log()
            with contextlib.suppress(Fenced):
                self._fail(FailureReason.INTERNAL, "the supervisor failed; its log says how")
        finally:
            self._ended.set()
            renewer.join()
            job_directory.remove(self.directory)

    def _attempt(self) -> None:
        log.info("attempt begins", attempt=self.claim.attempt)
        try:
            self._insist(
                lambda: job_directory.prepare(
                    self.directory, self.settings, self.database, self.store, self.claim
                )
            )
        except NotFound as error:
            self._fail(FailureReason.INTERNAL, error.detail)
            return
        except OSError as error:
            self._give_back(FailureReason.NO_SPACE, f"the job directory: {error}", free=False)
            return
        status = self._supervise()
        if self._fenced.is_set():
            raise Fenced(self.claim.job_id)
        self._finish(status)

    # -- the program ---------------------------------------------------------------------------

    def _supervise(self) -> int:
        """Run the program to its end, shipping as it goes; return its exit status."""
        command = [sys.executable, "-m", f"worker.programs.{self.claim.kind}", str(self.directory)]
        with job_directory.open_log(self.directory) as output:
            program = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*command, "--supervised"],
                stdin=subprocess.PIPE,  # closes with this process: then the program ends itself
                stdout=output,
                stderr=subprocess.STDOUT,
                env=program_environment(dict(os.environ)),
                start_new_session=True,
            )
        told_at: float | None = None
        log_at = 0.0
        try:
            while program.poll() is None:
                with contextlib.suppress(Unavailable):
                    self.shipper.ship()
                    if time.monotonic() - log_at > _LOG_SECONDS:
                        log_at = time.monotonic()
                        self.shipper.ship_log()
                if self._fenced.is_set():
                    return self._kill(program)
                if told_at is None and (self._request is not None or self.stopping.is_set()):
                    told_at = time.monotonic()
                    program.terminate()
                if told_at and time.monotonic() - told_at > self.settings.stop_grace_seconds:
                    return self._kill(program)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.wait(timeout=self.settings.poll_seconds)
        finally:
            self._kill(program)  # whatever happened above, no program outlives its supervisor
            if program.stdin is not None:
                program.stdin.close()
        return program.returncode

    def _kill(self, program: subprocess.Popen[bytes]) -> int:
        """End what is left of the program's process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)
        return program.wait()

    def _keep_lease(self) -> None:
        """Renew until the attempt has ended; an unreachable database does not stop the program."""
        while not self._ended.wait(min(self.settings.lease_seconds / 4, 2.0)):
            try:
                with self.database.write() as session:
                    self._request = jobs.renew(session, self.claim, self.settings.lease_seconds)
            except Unavailable as error:
                log.warning("lease not renewed", error=error.detail)
            except Fenced:
                self._fenced.set()
                return
            except Exception:  # this thread must live as long as the attempt
                log.exception("lease not renewed")

    # -- the outcome ---------------------------------------------------------------------------

    def _finish(self, status: int) -> None:
        """Record how the attempt ended. Raises Fenced."""
        self._insist(lambda: self.shipper.ship())
        self._insist(lambda: self.shipper.ship_log())
        failure = self.shipper.failure
        if status == EXIT_DONE:
            self._switch(JobStatus.SUCCEEDED)
        elif status == EXIT_FAILED and isinstance(failure, FailureEvent):
            self._fail(failure.reason, failure.detail)
        elif self._request is not None or (status == EXIT_STOPPED) or self.stopping.is_set():
            detail = "the worker was told to stop"
            self._give_back(FailureReason.WORKER_LOST, detail, free=True)
        else:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            tail = self.shipper.log_tail(lines=5)
            detail = f"the program ended with {how}" + (f"; its last lines: {tail}" if tail else "")
            self._give_back(FailureReason.CRASHED, detail, free=False)

    def _switch(self, to: JobStatus, **values: object) -> None:
        def switch() -> bool:
            with self.database.write() as session:
                job = jobs.get(session, self.claim.job_id)
                return jobs.switch_status(
                    session,
                    job,
                    to,
                    held_token=self.claim.token,
                    sources=(JobStatus.RUNNING,),
                    **values,
                )

        if not self._insist(switch):
            raise Fenced(self.claim.job_id)
        log.info("attempt ended", status=to.value)

    def _fail(self, reason: FailureReason, detail: str) -> None:
        self._switch(JobStatus.FAILED, failure_reason=reason, failure_detail=detail)

    def _give_back(self, reason: FailureReason, detail: str, *, free: bool) -> None:
        def give_back() -> JobStatus | None:
            with self.database.write() as session:
                job = jobs.hold(session, self.claim)
                if self._request is not None:
                    job.request = self._request
                return jobs.give_back(session, job, self.claim.token, reason, detail, free=free)

        log.warning("attempt ended", reason=reason.value, detail=detail)
        if self._insist(give_back) is None:
            raise Fenced(self.claim.job_id)

    def _insist(self, action: Callable[[], T]) -> T:
        """Try until the database and the store answer: what was learned must not be lost."""
        attempt = 0
        while True:
            try:
                return action()
            except Unavailable as error:
                pause = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                attempt += 1
                log.warning("trying again", error=error.detail, seconds=pause)
                if self._fenced.wait(pause):
                    raise Fenced(self.claim.job_id) from error
