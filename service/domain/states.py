"""Job states, the allowed transitions, and the closed list of failure reasons."""

from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {
            JobStatus.SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.CANCELLED,
            JobStatus.PAUSED,
            JobStatus.QUEUED,  # worker lost or preempted
        }
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}

# A failed job can be retried, but nothing happens to it until a user requests it: a stream ends
# there.
RESTING = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


def sources_of(target: JobStatus) -> frozenset[JobStatus]:
    """Return the states from which a job may go to `target`."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)


class JobRequest(StrEnum):
    """A user's request to a running job; the supervisor polls it and acts at a step boundary."""

    CANCEL = "cancel"
    PAUSE = "pause"


class Phase(StrEnum):
    """Activity of a running program, in the order of a train job.

    A merge job is `merging` between two periods of `evaluating`.
    """

    STARTING = "starting"
    LOADING = "loading"
    BASELINE = "baseline"
    TRAINING = "training"
    EVALUATING = "evaluating"
    MERGING = "merging"
    SAVING = "saving"
    REPORTING = "reporting"
    DONE = "done"


class FailureReason(StrEnum):
    INVALID_SPEC = "invalid_spec"
    INVALID_DATA = "invalid_data"
    MODEL_UNAVAILABLE = "model_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    CRASHED = "crashed"
    WORKER_LOST = "worker_lost"
    STALLED = "stalled"
    NO_SPACE = "no_space"
    INTERNAL = "internal"
