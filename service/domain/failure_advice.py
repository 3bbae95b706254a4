"""Advice to users about failed jobs, by kind of job and failure reason."""

from collections.abc import Mapping
from typing import NamedTuple

from service.domain.states import FailureReason


class Advice(NamedTuple):
    text: str
    retryable: bool
    """True if the same job, run again unchanged, may succeed."""


AdviceTable = Mapping[FailureReason, Advice]

_STALLED = (
    "The program stopped making progress and was killed; the end of its log shows the stack of "
    "every thread. Check the machine, or raise the limit named in the detail, then "
)
_MODEL_HUB = (
    "Restore the base model's files where they were during training, or give the worker access to "
    "the model hub (and HF_TOKEN for a gated model). Then "
)

TRAINING_ADVICE: AdviceTable = {
    FailureReason.INVALID_SPEC: Advice(
        "Correct the field named in the detail and submit a new run.", False
    ),
    FailureReason.INVALID_DATA: Advice(
        "Correct the rows named in the detail, upload the dataset again and submit a new run.",
        False,
    ),
    FailureReason.MODEL_UNAVAILABLE: Advice(
        "Resolve what the detail describes. Put the model's files into a directory below the "
        "models directory and use its name as base_model, or give the worker access to the model "
        "hub (and HF_TOKEN for a gated model); "
        "GET /v1/models lists the models available locally. Then POST /v1/runs/{id}/retry.",
        True,
    ),
    FailureReason.OUT_OF_MEMORY: Advice(
        "The batch size was already reduced to its minimum. Lower max_seq_length, enable "
        "gradient_checkpointing or load_in_4bit, or use a smaller base model: POST "
        "/v1/runs/{id}/clone with the changed fields. On a worker with more memory: POST "
        "/v1/runs/{id}/retry.",
        True,
    ),
    FailureReason.DIVERGED: Advice(
        "POST /v1/runs/{id}/clone with a lower learning_rate (try a third of it), a longer "
        "warm-up or a lower max_grad_norm, and check the data for malformed rows. Checkpoints "
        "from before the divergence are kept.",
        False,
    ),
    FailureReason.CRASHED: Advice(
        "Read the last lines of the run's logs. POST /v1/runs/{id}/retry resumes from the newest "
        "checkpoint.",
        True,
    ),
    FailureReason.WORKER_LOST: Advice(
        "The worker stopped responding too often. Check its machine, then POST "
        "/v1/runs/{id}/retry to resume from the newest checkpoint.",
        True,
    ),
    FailureReason.STALLED: Advice(f"{_STALLED}POST /v1/runs/{{id}}/retry.", True),
    FailureReason.NO_SPACE: Advice(
        "Free disk space on the worker or in the artifact store, then POST /v1/runs/{id}/retry.",
        True,
    ),
    FailureReason.INTERNAL: Advice(
        "This is a bug in Fairtune; please report it with the run's logs.", True
    ),
}


def _advice_on_scoring(repeat: str) -> dict[FailureReason, Advice]:
    """Advice for a job that scores rows or texts; `repeat` says how to request it again."""
    return {
        FailureReason.INVALID_SPEC: Advice(
            f"Resolve what the detail describes, then {repeat}", False
        ),
        FailureReason.INVALID_DATA: Advice(
            f"Correct the rows named in the detail, upload the dataset again, then {repeat}", False
        ),
        FailureReason.MODEL_UNAVAILABLE: Advice(f"{_MODEL_HUB}{repeat}", True),
        FailureReason.OUT_OF_MEMORY: Advice(
            "The batch size was already reduced to its minimum. When a worker with more memory is "
            f"available, {repeat}",
            True,
        ),
        FailureReason.DIVERGED: Advice(
            "These weights give no finite likelihoods. Request an earlier checkpoint.", False
        ),
        FailureReason.WORKER_LOST: Advice(
            f"The worker stopped responding too often. Check its machine, then {repeat}", True
        ),
        FailureReason.STALLED: Advice(f"{_STALLED}{repeat}", True),
        FailureReason.NO_SPACE: Advice(
            f"Free disk space on the worker or in the artifact store, then {repeat}", True
        ),
    }


_EVALUATE_AGAIN = "request the evaluation again (POST /v1/runs/{id}/evaluations)."

EVALUATION_ADVICE: AdviceTable = _advice_on_scoring(_EVALUATE_AGAIN) | {
    FailureReason.CRASHED: Advice(
        f"Read the last lines of the evaluation's logs, then {_EVALUATE_AGAIN}", True
    ),
    FailureReason.INTERNAL: Advice(
        "This is a bug in Fairtune; please report it with the evaluation's logs.", True
    ),
}

_MERGE_AGAIN = "request the merge again (POST /v1/runs/{id}/merged)."

MERGE_ADVICE: AdviceTable = {
    FailureReason.INVALID_SPEC: Advice(
        "Resolve what the detail describes, then request another merge (POST "
        "/v1/runs/{id}/merged).",
        False,
    ),
    FailureReason.INVALID_DATA: Advice(
        "The rows on which the adapter and the merged model are compared can no longer be read as "
        "they were during training; the detail says why.",
        False,
    ),
    FailureReason.MODEL_UNAVAILABLE: Advice(f"{_MODEL_HUB}{_MERGE_AGAIN}", True),
    FailureReason.OUT_OF_MEMORY: Advice(
        "Merging needs memory for one weight file only, but the comparison loads the whole merged "
        f"model. When a worker with more memory is available, {_MERGE_AGAIN}",
        True,
    ),
    FailureReason.DIVERGED: Advice(
        "These weights give no finite likelihoods. Merge an earlier checkpoint.", False
    ),
    FailureReason.CRASHED: Advice(
        f"Read the last lines of the merge's logs, then {_MERGE_AGAIN}", True
    ),
    FailureReason.WORKER_LOST: Advice(
        f"The worker stopped responding too often. Check its machine, then {_MERGE_AGAIN}", True
    ),
    FailureReason.STALLED: Advice(f"{_STALLED}{_MERGE_AGAIN}", True),
    FailureReason.NO_SPACE: Advice(
        "The worker's disk and the artifact store each need room for the whole merged model. Free "
        f"disk space, then {_MERGE_AGAIN}",
        True,
    ),
    FailureReason.INTERNAL: Advice(
        "This is a bug in Fairtune; please report it with the merge's logs.", True
    ),
}

_PREDICT_AGAIN = "request the predictions again (POST /v1/runs/{id}/predictions)."

PREDICTION_ADVICE: AdviceTable = _advice_on_scoring(_PREDICT_AGAIN) | {
    FailureReason.CRASHED: Advice(f"Retrying may succeed: {_PREDICT_AGAIN}", True),
    FailureReason.INTERNAL: Advice("This is a bug in Fairtune; please report it.", True),
}
