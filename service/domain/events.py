"""Events that programs emit, one JSON object a line in events.jsonl.

A program numbers its lines from 1 (`seq`); the supervisor ships them in that order. `progress`
and `failure` change the job's row; the rest also become events that users can read.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from service.domain.merge import MergeComparison
from service.domain.states import FailureReason, Phase
from service.domain.task import Target

# A program's exit status. Anything else is a crash.
EXIT_DONE = 0
EXIT_FAILED = 3
"""The last line of events.jsonl is a `failure`."""
EXIT_STOPPED = 4
"""Stopped by request (TERM, or the supervisor's pipe closed), after a checkpoint if possible."""
EXIT_NO_SPACE = 5
"""The job directory's disk is full, so events.jsonl may not mention it."""


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seq: int = Field(ge=1)
    time: datetime


class FileEntry(BaseModel):
    """A finished file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="Path in the directory of the event, checkpoint or merged model.")
    size: int = Field(ge=0, description="Size in bytes.")
    sha256: str = Field(description="SHA-256 of the content.")


class PhaseEvent(_Event):
    type: Literal["phase"] = "phase"
    phase: Phase


class Progress(_Event):
    """Progress of the job, stored only in its row; emitted at every step of a training.

    Other jobs emit it every other second: an evaluation counts rows scored; a merge, weights
    written and rows compared.
    """

    type: Literal["progress"] = "progress"
    step: int = Field(ge=0)
    total_steps: int = Field(ge=0)
    epoch: float = Field(ge=0)
    samples_per_second: float | None = None
    eta_seconds: float | None = Field(
        default=None, description="to the end of the whole job: training, evaluation and report"
    )
    gpu_memory_bytes: int | None = Field(
        default=None,
        ge=0,
        description="peak GPU memory of this process (rank 0 of several), over all its GPUs; null "
        "without a GPU",
    )
    phase_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="completed share of a phase that is not training; null if unknown",
    )
    saving: bool = Field(
        default=False,
        description="a checkpoint is about to be written: until the next event its limit applies",
    )


class MetricsEvent(_Event):
    type: Literal["metrics"] = "metrics"
    step: int = Field(ge=0)
    epoch: float = Field(ge=0)
    values: dict[str, float]


class CheckpointEvent(_Event):
    """A checkpoint is complete in the job directory under `path`."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int = Field(ge=0)
    epoch: float = Field(ge=0)
    path: str
    files: list[FileEntry]
    metrics: dict[str, float]
    best_step: int | None = Field(description="the best checkpoint so far, which must be kept")


class EvaluationEvent(_Event):
    type: Literal["evaluation"] = "evaluation"
    target: Target
    step: int | None
    split: str
    template: str
    metrics: dict[str, float | None]
    predictions: FileEntry
    """Path relative to the job directory."""


class ArtifactEvent(_Event):
    """A file of the job directory that belongs to the job's result, under the same path below the
    folder of the job's kind.
    """

    type: Literal["artifact"] = "artifact"
    file: FileEntry


class MergedEvent(_Event):
    """A merged model is complete in the job directory under `path`, comparison included."""

    type: Literal["merged"] = "merged"
    path: str
    files: list[FileEntry]
    """Their paths are relative to `path`."""
    comparison: MergeComparison


class PredictionsEvent(_Event):
    """The scores of the requested texts are complete in a file of the job directory."""

    type: Literal["predictions"] = "predictions"
    texts: int
    file: FileEntry
    """service.domain.prediction.Scores as JSON."""


class WarningEvent(_Event):
    type: Literal["warning"] = "warning"
    code: str
    detail: str


class LogEvent(_Event):
    type: Literal["log"] = "log"
    message: str


class RewoundEvent(_Event):
    """The program resumes from `step`: metrics past it are superseded."""

    type: Literal["rewound"] = "rewound"
    step: int = Field(ge=0)


class FailureEvent(_Event):
    type: Literal["failure"] = "failure"
    reason: FailureReason
    detail: str
    batch: Literal["train", "eval"] | None = Field(
        default=None, description="with out_of_memory: whose rows did not fit"
    )


ProgramEvent = Annotated[
    PhaseEvent
    | Progress
    | MetricsEvent
    | CheckpointEvent
    | EvaluationEvent
    | ArtifactEvent
    | MergedEvent
    | PredictionsEvent
    | WarningEvent
    | LogEvent
    | RewoundEvent
    | FailureEvent,
    Field(discriminator="type"),
]
program_event: TypeAdapter[ProgramEvent] = TypeAdapter(ProgramEvent)
