"""Job states, the allowed transitions, and the closed list of failure reasons."""

from enum import StrEnum
from typing import NamedTuple


class JobKind(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"
    MERGE = "merge"
    PREDICT = "predict"


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
    """What a running program is doing, in the order in which a train job goes through them.

    A merge job is `merging` between two times of `evaluating`.
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
        " GET /v1/models lists what is there already. Then POST /v1/runs/{id}/retry.",
        True,
    ),
    FailureReason.OUT_OF_MEMORY: Advice(
        "Batches were made as small as they can be. Lower max_seq_length, turn "
        "gradient_checkpointing or load_in_4bit on, or name a smaller base model: POST "
        "/v1/runs/{id}/clone with what shall differ. On a worker with more memory: POST "
        "/v1/runs/{id}/retry.",
        True,
    ),
    FailureReason.DIVERGED: Advice(
        "POST /v1/runs/{id}/clone with a lower learning_rate (a third of it is a good next try), a "
        "longer warm-up or a lower max_grad_norm; check the data for broken rows. The checkpoints "
        "from before are kept.",
        False,
    ),
    FailureReason.CRASHED: Advice(
        "Read the run's logs; the last lines say what happened. POST /v1/runs/{id}/retry goes on "
        "from the newest checkpoint.",
        True,
    ),
    FailureReason.WORKER_LOST: Advice(
        "The worker stopped answering too often. Check its machine, then POST /v1/runs/{id}/retry: "
        "the run goes on from its newest checkpoint.",
        True,
    ),
    FailureReason.STALLED: Advice(
        "The program stopped making progress and was killed; the log's end shows where each thread "
        "stood. Check the machine, or raise the limit that the detail names, then POST "
        "/v1/runs/{id}/retry.",
        True,
    ),
    FailureReason.NO_SPACE: Advice(
        "Free disk space on the worker or in the store, then POST /v1/runs/{id}/retry.", True
    ),
    FailureReason.INTERNAL: Advice(
        "This is a fault of Fairtune's own; please report it with the run's logs.", True
    ),
}

_AGAIN = "ask for the evaluation again (POST /v1/runs/{id}/evaluations)."

EVALUATION_ADVICE: dict[FailureReason, Advice] = {
    FailureReason.INVALID_SPEC: Advice(f"Mind what the detail says and {_AGAIN}", False),
    FailureReason.INVALID_DATA: Advice(
        f"Correct the rows that the detail names, upload the dataset anew and {_AGAIN}", False
    ),
    FailureReason.MODEL_UNAVAILABLE: Advice(
        "Put the base model's files where the run found them when it was trained, or give the "
        f"worker a way to the model hub (and HF_TOKEN for a gated model). Then {_AGAIN}",
        True,
    ),
    FailureReason.OUT_OF_MEMORY: Advice(
        "Batches were made as small as they can be. When a worker with more memory is there, "
        f"{_AGAIN}",
        True,
    ),
    FailureReason.DIVERGED: Advice(
        "These weights give no finite likelihoods. Evaluate an earlier checkpoint.", False
    ),
    FailureReason.CRASHED: Advice(
        f"Read the evaluation's logs; the last lines say what happened. Then {_AGAIN}", True
    ),
    FailureReason.WORKER_LOST: Advice(
        f"The worker stopped answering too often. Check its machine, then {_AGAIN}", True
    ),
    FailureReason.STALLED: Advice(
        "The program stopped making progress and was killed; the log's end shows where each thread "
        f"stood. Check the machine, or raise the limit that the detail names, then {_AGAIN}",
        True,
    ),
    FailureReason.NO_SPACE: Advice(
        f"Free disk space on the worker or in the store, then {_AGAIN}", True
    ),
    FailureReason.INTERNAL: Advice(
        "This is a fault of Fairtune's own; please report it with the evaluation's logs.", True
    ),
}

_MERGE_AGAIN = "ask for the merge again (POST /v1/runs/{id}/merged)."

MERGE_ADVICE: dict[FailureReason, Advice] = {
    FailureReason.INVALID_SPEC: Advice(
        "Mind what the detail says and ask for another merge (POST /v1/runs/{id}/merged).", False
    ),
    FailureReason.INVALID_DATA: Advice(
        "The rows that adapter and merged model are compared on cannot be read as the run read "
        "them: see the detail.",
        False,
    ),
    FailureReason.MODEL_UNAVAILABLE: Advice(
        "Put the base model's files where the run found them when it was trained, or give the "
        f"worker a way to the model hub (and HF_TOKEN for a gated model). Then {_MERGE_AGAIN}",
        True,
    ),
    FailureReason.OUT_OF_MEMORY: Advice(
        "Merging takes a weight file's memory, but to be compared the merged model is loaded as "
        f"a whole. When a worker with more memory is there, {_MERGE_AGAIN}",
        True,
    ),
    FailureReason.DIVERGED: Advice(
        "These weights give no finite likelihoods. Merge an earlier checkpoint.", False
    ),
    FailureReason.CRASHED: Advice(
        f"Read the merge's logs; the last lines say what happened. Then {_MERGE_AGAIN}", True
    ),
    FailureReason.WORKER_LOST: Advice(
        f"The worker stopped answering too often. Check its machine, then {_MERGE_AGAIN}", True
    ),
    FailureReason.STALLED: Advice(
        "The program stopped making progress and was killed; the log's end shows where each thread "
        f"stood. Check the machine, or raise the limit that the detail names, then {_MERGE_AGAIN}",
        True,
    ),
    FailureReason.NO_SPACE: Advice(
        "The worker's disk and the store each need room for the whole merged model. Free some, "
        f"then {_MERGE_AGAIN}",
        True,
    ),
    FailureReason.INTERNAL: Advice(
        "This is a fault of Fairtune's own; please report it with the merge's logs.", True
    ),
}

_PREDICT_AGAIN = "ask again (POST /v1/runs/{id}/predictions)."

PREDICTION_ADVICE: dict[FailureReason, Advice] = {
    reason: Advice(advice.text.replace(_AGAIN, _PREDICT_AGAIN), advice.retryable)
    for reason, advice in EVALUATION_ADVICE.items()
} | {
    FailureReason.DIVERGED: Advice(
        "These weights give no finite likelihoods. Name an earlier checkpoint.", False
    ),
    FailureReason.CRASHED: Advice(f"Another attempt may do; {_PREDICT_AGAIN}", True),
    FailureReason.INTERNAL: Advice("This is a fault of Fairtune's own; please report it.", True),
}


def advice_on(reason: FailureReason, kind: JobKind) -> Advice:
    """What a user can do about a job of that kind that failed for that reason."""
    return {
        JobKind.TRAIN: ADVICE,
        JobKind.EVALUATE: EVALUATION_ADVICE,
        JobKind.MERGE: MERGE_ADVICE,
        JobKind.PREDICT: PREDICTION_ADVICE,
    }[kind][reason]
