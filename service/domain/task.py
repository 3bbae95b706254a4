"""The parameters of a job, common to every kind."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Target = Literal["base", "adapter", "checkpoint", "merged"]


class Task(BaseModel):
    """Parameters of a job that the run's specification does not contain, with every default
    resolved. Stored in the job's row and copied into job.json.
    """

    model_config = ConfigDict(frozen=True)

    target: Target | None = None
    """Weights that the program loads beside or instead of the base model; null: none."""
    step: int | None = None
    """Optimizer step of the weights; null: the base model's."""
    merge: str | None = None
    """Id of the merge whose model is loaded, with target merged."""
    dataset_id: str | None = None
    """Dataset of the rows; null: the run's."""
    template: str | None = None
    """Name of the prompt template; null: the run's."""
