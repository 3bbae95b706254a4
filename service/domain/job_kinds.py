"""The registry of job kinds: the one place that says how kinds of jobs differ.

A new kind needs an entry here, its program under worker.programs, its use case and its route.
Everything else asks the registry: queue, store, supervisor and API compare no kinds by name.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from service.domain.evaluation import EvaluationTask
from service.domain.events import (
    ArtifactEvent,
    CheckpointEvent,
    EvaluationEvent,
    FailureEvent,
    LogEvent,
    MergedEvent,
    MetricsEvent,
    PhaseEvent,
    PredictionsEvent,
    Progress,
    RewoundEvent,
    WarningEvent,
)
from service.domain.failure_advice import (
    EVALUATION_ADVICE,
    MERGE_ADVICE,
    PREDICTION_ADVICE,
    TRAINING_ADVICE,
    AdviceTable,
)
from service.domain.merge import MERGED_FOLDER, MergeTask
from service.domain.prediction import PredictionTask
from service.domain.task import Task

JOBS_QUEUE = "jobs"
PREDICTIONS_QUEUE = "predictions"
"""A queue of its own: a worker that serves it alone answers while others train."""

_COMMON_EVENTS = (PhaseEvent, Progress, WarningEvent, LogEvent, FailureEvent)


@dataclass(frozen=True, slots=True)
class JobKind:
    """Everything that distinguishes one kind of job from another."""

    name: str
    """Value of the job's `kind`, in its row, in job.json and in status events."""
    noun: str
    """The resource that users see, for messages: run, evaluation, …"""
    program: str
    """Module that a worker runs as `python -m MODULE JOB_DIR`."""
    events: tuple[type[Any], ...]
    """Event classes that the program may emit beside those common to all programs."""
    advice: AdviceTable
    queue: str = JOBS_QUEUE
    task_model: type[Task] | None = None
    """Model of the job's params; None: the run's specification says everything."""
    result_prefix: str = "job"
    """Prefix of the id of the resource that the job produces: `eval` of eval_…"""
    result_field: str | None = None
    """Field of the job's events that holds that id; None: the events are the run's own."""
    folder: str | None = None
    """Folder of the job's files among those of its run; None: their root."""
    log_name: str = "training.log"
    withdrawn_folder: str | None = None
    """Folder of files that become invisible again if the job fails or is cancelled."""
    trains: bool = False
    """True for the one job whose state is its run's: it resumes from the run's checkpoints, and
    keeps the base model's scores of earlier attempts."""
    needs_dataset: bool = True
    """True if the job directory gets the dataset's rows."""

    def task(self, params: dict[str, Any]) -> Task | None:
        """Return the task that a job's params hold. Raises ValidationError."""
        return None if self.task_model is None else self.task_model.model_validate(params)

    def accepts(self, event: object) -> bool:
        """Return True if a program of this kind may emit the event."""
        return isinstance(event, _COMMON_EVENTS + self.events)

    def result_id(self, job_id: str) -> str:
        """Return the id of the resource that a job produces; it is known from the start."""
        return f"{self.result_prefix}_{job_id.removeprefix('job_')}"

    def job_id(self, result_id: str) -> str:
        """Return the inverse of `result_id`; for an id with another prefix, the id of no job."""
        return f"job_{result_id.removeprefix(f'{self.result_prefix}_')}"

    def path(self, job_id: str, name: str) -> str:
        """Return the path of a file of the job among the files of its run."""
        return name if self.folder is None else f"{self.folder}/{self.result_id(job_id)}/{name}"

    def log_path(self, job_id: str) -> str:
        """Return the path of the program's log among the files of the job's run."""
        return self.path(job_id, self.log_name)

    def withdrawn_path(self, job_id: str) -> str | None:
        """Return the prefix of the files to hide if the job fails or is cancelled."""
        if self.withdrawn_folder is None:
            return None
        return f"{self.withdrawn_folder}/{self.result_id(job_id)}/"


KINDS: dict[str, JobKind] = {}
"""Every kind by its name."""


def register(kind: JobKind) -> JobKind:
    """Add a kind to the registry and return it."""
    KINDS[kind.name] = kind
    return kind


TRAIN = register(
    JobKind(
        name="train",
        noun="run",
        program="worker.programs.train",
        events=(MetricsEvent, CheckpointEvent, EvaluationEvent, ArtifactEvent, RewoundEvent),
        advice=TRAINING_ADVICE,
        trains=True,
    )
)
EVALUATE = register(
    JobKind(
        name="evaluate",
        noun="evaluation",
        program="worker.programs.evaluate",
        events=(EvaluationEvent,),
        advice=EVALUATION_ADVICE,
        task_model=EvaluationTask,
        result_prefix="eval",
        result_field="evaluation_id",
        folder="evaluations",
        log_name="evaluate.log",
    )
)
MERGE = register(
    JobKind(
        name="merge",
        noun="merge",
        program="worker.programs.merge",
        events=(MergedEvent,),
        advice=MERGE_ADVICE,
        task_model=MergeTask,
        result_prefix="merge",
        result_field="merge_id",
        folder="merges",
        log_name="merge.log",
        withdrawn_folder=MERGED_FOLDER,
    )
)
PREDICT = register(
    JobKind(
        name="predict",
        noun="prediction",
        program="worker.programs.predict",
        events=(PredictionsEvent,),
        advice=PREDICTION_ADVICE,
        queue=PREDICTIONS_QUEUE,
        task_model=PredictionTask,
        result_prefix="pred",
        result_field="prediction_id",
        folder="predictions",
        log_name="predict.log",
        needs_dataset=False,
    )
)


def job_kind(name: str) -> JobKind:
    """Return the kind of that name. Raises KeyError."""
    return KINDS[name]


def queue_names() -> list[str]:
    """Return every queue that jobs of some kind wait in."""
    return list(dict.fromkeys(kind.queue for kind in KINDS.values()))


def names_in(queues: Collection[str]) -> list[str]:
    """Return the names of the kinds whose jobs wait in these queues."""
    return [kind.name for kind in KINDS.values() if kind.queue in queues]
