"""The directory of the model that a job loads."""

from pathlib import Path

from service.domain.job import Job
from worker.modeling.locate import locate
from worker.modeling.model_files import check_files


def locate_model(job: Job, job_directory: Path) -> Path:
    """Return the job's merged model if it has one, else the base model, its files checked.

    Raises ProgramFailure.
    """
    if job.merged is not None:
        directory, name = job_directory / job.merged, "the merged model"
    else:
        name = job.spec.base_model
        directory = locate(name, Path(job.models_dir))
    check_files(directory, name)
    return directory
