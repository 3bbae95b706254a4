"""Texts that a run's model is asked about: what may be asked for, what was made of that."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.domain.task import Task

MOST_TEXTS = 256
Text = Annotated[str, Field(min_length=1, max_length=100_000)]
PREDICTIONS_FILE = "predictions.json"


def _threshold(value: Any) -> str | float | None:
    if value is None or value == "argmax":
        return value  # type: ignore[no-any-return]  # one of the two
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise PydanticCustomError("threshold", "say argmax or a number from 0 to 1, or leave it out")


Threshold = Annotated[
    Literal["argmax"] | float | None,
    PlainValidator(_threshold),  # one error at the field, not one for each form of it
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "const": "argmax"},
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "null"},
            ]
        }
    ),
]


class PredictionRequest(BaseModel):
    """What POST /v1/runs/{id}/predictions takes. What is left out is the run's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    texts: list[Text] = Field(
        min_length=1, max_length=MOST_TEXTS, description="What is to be classified, in this order."
    )
    target: Literal["adapter", "checkpoint", "merged"] = Field(
        "adapter", description="Which weights; merged: the run's newest finished merge."
    )
    step: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Of the checkpoint; for the target checkpoint alone."
    )
    template: str | None = Field(None, max_length=100, description="Null: the run's.")
    threshold: Threshold = Field(
        None,
        description="argmax: the most probable label. A number: positive from that score on. Null: "
        "as the run's specification decides, with the threshold that its report was fitted to.",
    )


class PredictionOrder(Task):
    """Parameters of a prediction job without the texts and the labels."""

    target: Literal["adapter", "checkpoint", "merged"]
    step: int
    template: str
    positive_label: str
    threshold: float | None
    """Null: argmax."""


class PredictionTask(PredictionOrder):
    """Parameters of a prediction job."""

    labels: list[str]
    """Labels of the run's training rows, sorted."""
    texts: list[str]


class Scores(BaseModel):
    """What the program found: predictions.json. One entry for each text, in their order."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    probabilities: list[list[float]]
    """Over the task's labels."""
    truncated: list[bool]
    """Whether the text's end was cut off to fit."""


class Prediction(BaseModel):
    """What the model makes of a text."""

    model_config = ConfigDict(frozen=True)

    label: str
    score: float = Field(description="Probability of the positive label.")
    probabilities: dict[str, float] = Field(description="By label; they sum to 1.")
    truncated: bool = Field(description="Whether the text was too long: its end was not read.")


def decided(task: PredictionTask, scores: Scores) -> list[Prediction]:
    """Labels by the task's threshold; the first in sorted order of equally probable ones.

    Below a threshold it is the most probable of the other labels.
    """
    found = []
    for values, cut in zip(scores.probabilities, scores.truncated, strict=True):
        by_label = dict(zip(task.labels, values, strict=True))
        score = by_label[task.positive_label]
        if task.threshold is None:
            label = max(by_label, key=by_label.__getitem__)
        elif score >= task.threshold:
            label = task.positive_label
        else:
            others = [one for one in by_label if one != task.positive_label] or [*by_label]
            label = max(others, key=by_label.__getitem__)
        found.append(Prediction(label=label, score=score, probabilities=by_label, truncated=cut))
    return found
