"""A fifth kind of job as a contributor would add it: a registry entry, a task and a program.

The test registers COUNT in its own process; run as a program, this module registers it itself.
"""

from service.domain.events import ArtifactEvent
from service.domain.failure_advice import EVALUATION_ADVICE
from service.domain.job_kinds import JobKind, register
from service.domain.states import Phase
from service.domain.task import Task
from worker.runtime.events import file_entry
from worker.runtime.launch import Program, launch


class CountTask(Task):
    texts: list[str]


COUNT = JobKind(
    name="count",
    noun="count",
    program="tests.support.fifth_kind",
    events=(ArtifactEvent,),
    advice=EVALUATION_ADVICE,
    queue="counts",
    task_model=CountTask,
    result_prefix="count",
    result_field="count_id",
    folder="counts",
    log_name="count.log",
    withdrawn_folder="counts",
)


def main(program: Program) -> None:
    """Write the number of texts and of dataset bytes; fail without texts."""
    task = program.job.task
    assert isinstance(task, CountTask)
    assert task.texts
    path = program.directory / "count.txt"
    path.write_text(f"{len(task.texts)} {(program.directory / program.job.dataset).stat().st_size}")
    program.reporter.emit(ArtifactEvent, file=file_entry(path, program.directory))
    program.reporter.phase(Phase.DONE)


if __name__ == "__main__":
    register(COUNT)
    launch(main, __doc__ or "")
