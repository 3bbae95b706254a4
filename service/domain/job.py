"""job.json: all that a program needs to know, so that a person can run one by hand."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.domain.evaluation import EvaluationTask, evaluation_id
from service.domain.merge import MergeTask, merge_id
from service.domain.prediction import PredictionTask, prediction_id
from service.domain.spec import RunSpec
from service.domain.states import JobKind
from service.domain.template import Template

JOB_FILE = "job.json"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "training.log"
DATASET_FILE = "dataset.parquet"
BIAS_REPORT_FILE = "bias_report.json"
CARD_FILE = "README.md"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = ("adapter_config.json", ADAPTER_WEIGHTS_FILE)

# Directories below a job directory.
CHECKPOINTS_DIR = "checkpoints"
EVALUATIONS_DIR = "evaluations"
TENSORBOARD_DIR = "tensorboard"
ADAPTER_DIR = "adapter"
MERGED_DIR = "merged"


def checkpoint_path(step: int) -> str:
    """Return the directory of a step's checkpoint, relative to the job directory."""
    return f"{CHECKPOINTS_DIR}/checkpoint-{step}"


def log_path(kind: JobKind, job_id: str) -> str:
    """Where the log of a job's program lies among the files of its run."""
    if kind == JobKind.EVALUATE:
        return f"evaluations/{evaluation_id(job_id)}/evaluate.log"
    if kind == JobKind.MERGE:
        return f"merges/{merge_id(job_id)}/merge.log"
    if kind == JobKind.PREDICT:
        return f"predictions/{prediction_id(job_id)}/predict.log"
    return LOG_FILE


class Job(BaseModel):
    """A job directory's job.json. Relative paths are below the job directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    job_id: str
    run_id: str
    token: int
    request_id: str | None = None
    """X-Request-ID of the HTTP request that queued the job, for the log alone."""
    spec: RunSpec
    template: Template
    baseline_template: Template | None
    models_dir: str
    """Where base models lie by name, and where a bundled one is converted to, once."""
    dataset: str = DATASET_FILE
    """Canonical rows as Parquet; service.datasets.rows has the columns."""
    completions: dict[str, str] | None = None
    """Label -> assistant turn, for datasets of chat messages with labels; null: the template's."""
    dataset_warnings: list[dict[str, Any]] = []
    """What the service found in the dataset, each with a `code` and a `detail`: for the report."""
    resume_from: str | None = None
    """A complete checkpoint directory to go on from."""
    train_batch_size: int | None = None
    eval_batch_size: int | None = None
    """Rows per forward pass where memory did not suffice for the specification's. The effective
    batch is the specification's all the same."""
    evaluation: EvaluationTask | None = None
    """What an evaluation job scores; null in a train job. `template` is then the one to score
    under, and `completions` are those of the dataset that the run was trained on."""
    merge: MergeTask | None = None
    """What a merge job makes; null in others."""
    prediction: PredictionTask | None = None
    """What a prediction job scores; null in others. `template` is then the one to score under."""
    adapter: str | None = None
    """The directory of the adapter that an evaluation job scores or a merge job merges; null: the
    base model's own weights, or a merged model's."""
    merged: str | None = None
    """The directory of the merged model that an evaluation job scores."""

    @classmethod
    def read(cls, directory: Path) -> "Job":
        return cls.model_validate_json((directory / JOB_FILE).read_bytes())
