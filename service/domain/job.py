"""job.json: everything a program needs, so that a person can run one by hand."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationInfo, field_validator

from service.domain.job_kinds import KINDS, TRAIN
from service.domain.spec import RunSpec
from service.domain.task import Task
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


class Job(BaseModel):
    """A job directory's job.json. Relative paths are below the job directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: str = TRAIN.name
    job_id: str
    run_id: str
    token: int
    request_id: str | None = None
    """X-Request-ID of the HTTP request that queued the job, for the log alone."""
    spec: RunSpec
    template: Template
    baseline_template: Template | None
    models_dir: str
    """Directory of base models by name; a bundled one is converted into it once."""
    dataset: str = DATASET_FILE
    """Canonical rows as Parquet; service.datasets.rows has the columns."""
    completions: dict[str, str] | None = None
    """Label -> assistant turn, for labelled datasets of chat messages; null: the template's."""
    dataset_name: str | None = None
    """Name of the dataset, for the model card."""
    dataset_warnings: list[dict[str, Any]] = []
    """The dataset's warnings, each with a `code` and a `detail`, for the report."""
    resume_from: str | None = None
    """Directory of the complete checkpoint to resume from."""
    train_batch_size: int | None = None
    eval_batch_size: int | None = None
    """Rows per forward pass, if memory did not suffice for those of the specification. The
    effective batch remains that of the specification."""
    task: SerializeAsAny[Task] | None = None
    """Parameters of the job, of its kind's model; null in a train job. Its template is then
    `template`, and `completions` are those of the dataset that the run was trained on."""
    adapter: str | None = None
    """Directory of the adapter to load; null: none is loaded."""
    imported: bool = False
    """True for an adapter that was trained elsewhere: its own adapter_config.json describes it, and
    not the specification."""
    merged: str | None = None
    """Directory of the merged model to load instead of the base model."""

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        if value not in KINDS:
            raise ValueError(f"no such kind of job; known are {', '.join(KINDS)}")
        return value

    @field_validator("task", mode="before")
    @classmethod
    def _task_of_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Validate the task with the model of the job's kind."""
        kind = KINDS.get(info.data.get("kind", ""))
        return kind.task(value) if kind is not None and isinstance(value, dict) else value

    @classmethod
    def read(cls, directory: Path) -> "Job":
        """Read a job directory's job.json. Raises OSError, ValidationError."""
        return cls.model_validate_json((directory / JOB_FILE).read_bytes())
