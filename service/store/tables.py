"""The tables. Every row of a user belongs to a project."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from service.domain.states import JobStatus
from service.store.database import UtcDateTime, db_now

Json = JSON().with_variant(JSONB(), "postgresql")
NullableJson = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
DEFAULT_PROJECT = "default"

# One naming rule, so that migrations can name what they drop on every database.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def _created() -> Any:
    return Field(
        default=None, sa_type=UtcDateTime, nullable=False, sa_column_kwargs={"default": db_now()}
    )


def _time() -> Any:
    return Field(default=None, sa_type=UtcDateTime, nullable=True)


def _json(default: Any) -> Any:
    return Field(default_factory=default, sa_type=Json, nullable=False)


class Project(SQLModel, table=True):
    id: str = Field(primary_key=True)
    created_at: datetime = _created()


class Dataset(SQLModel, table=True):
    """An immutable dataset. Blobs are shared by content; ids are not."""

    id: str = Field(primary_key=True)
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    content_hash: str = Field(index=True)
    key: str
    size: int = Field(sa_type=BigInteger)
    stats: dict[str, Any] = _json(dict)
    warnings: list[dict[str, Any]] = _json(list)
    dropped: dict[str, Any] = _json(dict)
    completions: dict[str, str] = _json(dict)
    """Label -> assistant turn, for chats with labels; empty: a template's."""
    created_at: datetime = _created()
    deleted_at: datetime | None = _time()
    """Start time of its deletion: the dataset is hidden until its row is gone."""


class Run(SQLModel, table=True):
    """A specification; its state is that of its train job. An imported adapter is a run, too."""

    # For filtered lists, newest first: without them a filter that few runs pass reads all runs.
    __table_args__ = (
        Index("ix_run_dataset_id_id", "dataset_id", "id"),
        Index("ix_run_name_id", "name", "id"),
        Index(
            "ix_run_imported",
            "id",
            sqlite_where=text("imported IS NOT NULL"),
            postgresql_where=text("imported IS NOT NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str = Field(index=True)
    preset: str
    base_model: str
    dataset_id: str = Field(foreign_key="dataset.id", index=True)
    spec: dict[str, Any] = _json(dict)
    tags: list[str] = _json(list)
    imported: dict[str, Any] | None = Field(default=None, sa_type=NullableJson, nullable=True)
    """The ImportedAdapter of a run whose adapter was trained elsewhere; null: it was trained here.
    Its train job succeeded without ever being queued, and its dataset is what it is scored on."""
    cloned_from: str | None = None
    """Id of the run whose specification this one copies, with overrides."""
    created_by: str | None = None
    """Name of the API key that created it; null where access was open."""
    event_count: int = 0
    """Number of the run's newest event. Raised under the row's lock: no gaps, in commit order."""
    created_at: datetime = _created()
    deleted_at: datetime | None = _time()
    """Start of its deletion: the run is hidden while its files and rows are deleted."""


class RunTag(SQLModel, table=True):
    """A tag of a run, for filtered lists. The database maintains it: a trigger on the insertion of
    a run fills it from `Run.tags`, which never change.
    """

    __tablename__ = "run_tag"

    tag: str = Field(primary_key=True)
    run_id: str = Field(foreign_key="run.id", primary_key=True, index=True, ondelete="CASCADE")


class Job(SQLModel, table=True):
    """Training, evaluating or merging. Only service.store.jobs changes `status`."""

    __table_args__ = (
        CheckConstraint(
            "status in (" + ", ".join(f"'{status}'" for status in JobStatus) + ")", name="status"
        ),
        Index(None, "status", "lease_expires_at"),
        Index("ix_job_kind_status_run_id", "kind", "status", "run_id"),
        Index("ix_job_status_queued_at_id", "status", "queued_at", "id"),
        Index(
            "ix_job_takeovers",
            "takeovers",
            sqlite_where=text("takeovers > 0"),
            postgresql_where=text("takeovers > 0"),
        ),
    )

    id: str = Field(primary_key=True)
    run_id: str = Field(foreign_key="run.id", index=True)
    kind: str
    params: dict[str, Any] = Field(
        default_factory=dict,
        sa_type=Json,
        nullable=False,
        sa_column_kwargs={"server_default": "{}"},
    )
    """Task of a job other than the training, such as an EvaluationTask or a MergeTask."""
    status: str
    request: str | None = None
    """Pending request of a user for a running job: cancel or pause."""
    requested_by: str | None = None
    """Name of the API key that requested it."""
    request_id: str | None = None
    """X-Request-ID of the HTTP request that queued the job last, for searching logs."""
    # The lease.
    owner: str | None = None
    token: int = 0
    lease_expires_at: datetime | None = _time()
    attempts: int = 0
    attempts_since_checkpoint: int = 0
    takeovers: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Number of times that the sweep took the job from an unresponsive worker."""
    train_batch_size: int | None = None
    eval_batch_size: int | None = None
    """Rows per forward pass, if memory did not suffice for the specification's."""
    # Progress.
    phase: str = "starting"
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    samples_per_second: float | None = None
    phase_share: float | None = None
    """Completed share of the phase, from 0 to 1; null if the program does not report it."""
    eta_seconds: float | None = None
    gpu_memory_bytes: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    """Peak GPU memory of the program in this attempt; null without a GPU."""
    metrics: dict[str, float] = _json(dict)
    shipped_seq: int = 0
    """Number of the last recorded line of the present attempt's events.jsonl."""
    failure_reason: str | None = None
    failure_detail: str | None = None
    created_at: datetime = _created()
    queued_at: datetime | None = _time()
    started_at: datetime | None = _time()
    finished_at: datetime | None = _time()
    deleted_at: datetime | None = _time()
    """Start of a merge's deletion. The merge and its files are hidden; the row stays, since events
    and evaluations refer to it."""


class Event(SQLModel, table=True):
    """An event of a run, numbered from 1 without gaps within the run."""

    __table_args__ = (UniqueConstraint("job_id", "token", "seq"),)

    run_id: str = Field(foreign_key="run.id", primary_key=True)
    number: int = Field(primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    token: int | None = None
    seq: int | None = None
    """Line of the program's events.jsonl; null for events of the control plane."""
    type: str
    data: dict[str, Any] = _json(dict)
    created_at: datetime = _created()


class Metric(SQLModel, table=True):
    run_id: str = Field(foreign_key="run.id", primary_key=True)
    name: str = Field(primary_key=True)
    step: int = Field(primary_key=True)
    epoch: float
    value: float
    job_id: str
    token: int


class Checkpoint(SQLModel, table=True):
    run_id: str = Field(foreign_key="run.id", primary_key=True)
    step: int = Field(primary_key=True)
    job_id: str
    token: int
    epoch: float
    is_best: bool = False
    metrics: dict[str, float] = _json(dict)
    prefix: str
    """Prefix of its files in the artifact store."""
    files: list[dict[str, Any]] = _json(list)
    size: int = Field(sa_type=BigInteger)
    created_at: datetime = _created()


class Artifact(SQLModel, table=True):
    """A file of a run's result. Visible because this row is."""

    run_id: str = Field(foreign_key="run.id", primary_key=True)
    path: str = Field(primary_key=True)
    job_id: str
    token: int
    key: str
    size: int = Field(sa_type=BigInteger)
    sha256: str
    created_at: datetime = _created()


class Evaluation(SQLModel, table=True):
    """Predictions that are there, made by the run's train job or by an evaluation job.

    A requested evaluation has the id that `service.domain.evaluation` derives from its job's.
    """

    __table_args__ = (
        UniqueConstraint("run_id", "label"),
        ForeignKeyConstraint(["job_id"], ["job.id"]),
    )

    id: str = Field(primary_key=True)
    run_id: str = Field(foreign_key="run.id", index=True)
    label: str
    """job, target, step, split and template in one: a re-run of the job replaces its own."""
    job_id: str
    token: int
    target: str
    step: int | None = None
    dataset_id: str
    split: str
    template: str
    metrics: dict[str, float | None] = _json(dict)
    key: str
    """The predictions (Parquet) in the artifact store."""
    size: int = Field(sa_type=BigInteger)
    sha256: str
    created_at: datetime = _created()


class Promotion(SQLModel, table=True):
    """A run was given a name. Of those with one name and stage the newest is current."""

    __table_args__ = (
        Index(
            "uq_promotion_current",
            "project_id",
            "name",
            "stage",
            unique=True,
            sqlite_where=text("superseded_at IS NULL"),
            postgresql_where=text("superseded_at IS NULL"),
        ),
        Index(None, "name", "stage"),
    )

    id: str = Field(primary_key=True)
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    stage: str
    run_id: str = Field(foreign_key="run.id", index=True)
    report_sha256: str | None = None
    """Of the certifying report that it rested on; null: the run has none, and was promoted so."""
    override_reason: str | None = None
    overrode: list[dict[str, Any]] = _json(list)
    """What hindered (service.domain.release.Hindrance), where `override_reason` says why not."""
    created_by: str | None = None
    """Name of the API key that requested it; null where access was open."""
    created_at: datetime = _created()
    superseded_at: datetime | None = _time()
    """When the run lost the name: to another run, or by withdrawal; null while it has it."""
    withdrawn_at: datetime | None = _time()
    """The same time, if the name was withdrawn from the run."""
    withdrawn_by: str | None = None
    """Name of the API key that withdrew it; null where access was open."""


class Idempotency(SQLModel, table=True):
    """A creating POST that was answered; its row is in the same commit as the thing made."""

    owner: str = Field(primary_key=True)
    route: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_hash: str
    made_id: str
    created_at: datetime = _created()


class ApiKey(SQLModel, table=True):
    """An API key. Its token is shown once and never stored."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    role: str
    digest: str
    """SHA-256 of the token, hexadecimal."""
    created_at: datetime = _created()
    expires_at: datetime | None = _time()
    revoked_at: datetime | None = _time()
    last_used_at: datetime | None = _time()
