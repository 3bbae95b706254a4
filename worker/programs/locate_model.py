"""The directory of the model that a job loads."""

from pathlib import Path

from service.domain.job import Job
from worker.modeling.locate import locate


def locate_model(job: Job, job_directory: Path) -> Path:
    """Return the job's merged model if it has one, else the base model. Raises ProgramFailure."""
    if job.merged is not None:
        return job_directory / job.merged
    return locate(job.spec.base_model, Path(job.models_dir))
