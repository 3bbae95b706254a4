"""job.json: all that a program needs to know, so that a person can run one by hand."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.domain.spec import RunSpec
from service.domain.template import Template

JOB_FILE = "job.json"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "training.log"
DATASET_FILE = "dataset.parquet"
BIAS_REPORT_FILE = "bias_report.json"


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
    resume_from: str | None = None
    """A complete checkpoint directory to go on from."""
    train_batch_size: int | None = None
    eval_batch_size: int | None = None
    """Rows per forward pass where memory did not suffice for the specification's. The effective
    batch is the specification's all the same."""

    @classmethod
    def read(cls, directory: Path) -> "Job":
        return cls.model_validate_json((directory / JOB_FILE).read_bytes())
