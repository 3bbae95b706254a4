"""Job states, the allowed transitions, and the closed list of failure reasons."""

from enum import StrEnum
from typing import NamedTuple


class JobKind(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"
    MERGE = "merge"


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
            JobStatus.QUEUED,  # worker lost or pre-empted
        }
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}

# A failed job can be retried, but nothing happens to it until someone asks: a stream ends there.
RESTING = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


def sources_of(target: JobStatus) -> frozenset[JobStatus]:
    """The states from which a job may go to `target`."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)


class JobRequest(StrEnum):
    """What a user asked of a running job; the supervisor polls it and acts at a step boundary."""

    CANCEL = "cancel"
    PAUSE = "pause"


class Phase(StrEnum):
    """What a running program is doing, in the order in which a train job goes through them."""

    STARTING = "starting"
    LOADING = "loading"
    BASELINE = "baseline"
    TRAINING = "training"
    EVALUATING = "evaluating"
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


class Advice(NamedTuple):
    text: str
    retryable: bool
    """Whether the same job, run again unchanged, may succeed."""


ADVICE: dict[FailureReason, Advice] = {
    FailureReason.INVALID_SPEC: Advice(
        "Correct the field that the detail names and submit a new run.", False
    ),
    FailureReason.INVALID_DATA: Advice(
        "Correct the rows that the detail names, upload the dataset anew and submit a new run.",
        False,
    ),
    FailureReason.MODEL_UNAVAILABLE: Advice(
        "Put the model's files into a directory below the models directory and name that directory "
        "as base_model, or give the worker a way to the model hub (and HF_TOKEN for a gated model);"
        " GET /v1/models lists what is there already. Then submit the run again.",
        True,
    ),
    FailureReason.OUT_OF_MEMORY: Advice(
        "Lower per_device_train_batch_size (raise gradient_accumulation_steps by the same factor to"
        " keep the effective batch), lower max_seq_length, turn gradient_checkpointing on, or use "
        "the preset memory_efficient.",
        False,
    ),
    FailureReason.DIVERGED: Advice(
        "Lower learning_rate (a third of it is a good next try), lengthen the warm-up, or lower "
        "max_grad_norm; check the data for broken rows.",
        False,
    ),
    FailureReason.CRASHED: Advice("Read the run's logs; the last lines say what happened.", True),
    FailureReason.WORKER_LOST: Advice(
        "The worker stopped answering too often. Check its machine, then submit the run again.",
        True,
    ),
    FailureReason.STALLED: Advice(
        "The program stopped making progress and was ended. Check the machine and the logs.", True
    ),
    FailureReason.NO_SPACE: Advice("Free disk space on the worker or in the store.", True),
    FailureReason.INTERNAL: Advice(
        "This is a fault of Fairtune's own; please report it with the run's logs.", True
    ),
}
