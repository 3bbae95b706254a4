"""Recording of an attempt's outcome in the database."""

from typing import Any

import structlog

from service.domain.states import FailureReason, JobStatus
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Claim, Fenced
from worker.supervision.retry import StorageRetry
from worker.supervision.weights_cache import WeightsCache

log = structlog.get_logger()


class OutcomeRecorder:
    """Ends one attempt, under its fencing token. All methods raise Fenced and RetryExhausted."""

    def __init__(
        self, database: Database, claim: Claim, storage_retry: StorageRetry, cache: WeightsCache
    ) -> None:
        self._database = database
        self._claim = claim
        self._storage_retry = storage_retry
        self._cache = cache
        self.returned_free = False
        """True if the job returned to the queue at no cost."""

    def succeed(self) -> None:
        """Mark the job as succeeded."""
        self._switch(JobStatus.SUCCEEDED)

    def fail(self, reason: FailureReason, detail: str) -> None:
        """Mark the job as failed: no other attempt is made."""
        self._switch(JobStatus.FAILED, failure_reason=reason, failure_detail=detail)

    def return_to_queue(
        self, reason: FailureReason, detail: str, *, free: bool, from_program: bool = False
    ) -> None:
        """Return the job to the queue for another attempt; a `free` one is not counted.

        `from_program` is True for a failure that the program reported.
        """

        def return_job() -> JobStatus | None:
            with self._database.write() as session:
                job = jobs.lock_for_worker(session, self._claim)
                return jobs.return_to_queue(
                    session,
                    job,
                    self._claim.token,
                    reason,
                    detail,
                    free=free,
                    from_program=from_program,
                )

        log.warning("attempt ended", reason=reason.value, detail=detail)
        if reason == FailureReason.NO_SPACE:
            self._cache.clear()  # the next attempt must not fail because of cached files
        if self._storage_retry.run(return_job) is None:
            raise Fenced(self._claim.job_id)
        self.returned_free = free

    def _switch(self, to: JobStatus, **values: Any) -> None:
        def switch() -> bool:
            with self._database.write() as session:
                job = jobs.get(session, self._claim.job_id)
                return jobs.switch_status(
                    session,
                    job,
                    to,
                    expected_token=self._claim.token,
                    sources=(JobStatus.RUNNING,),
                    **values,
                )

        if not self._storage_retry.run(switch):
            raise Fenced(self._claim.job_id)
        log.info("attempt ended", status=to.value)
