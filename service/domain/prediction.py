"""Predictions of texts: the request, the task resolved from it, scores and labels."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service.domain.evaluation import STEP, STEP_MISMATCH
from service.domain.section import refused, together
from service.domain.task import Task

MAX_TEXTS = 256
MAX_TURNS = 1000
NOT_BLANK = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
"""Pattern of a text with a character that is no space, and without NUL."""
Text = Annotated[str, Field(min_length=1, max_length=100_000)]
PREDICTIONS_FILE = "predictions.json"


def _threshold(value: Any) -> str | float | None:
    if value is None or value == "argmax":
        return value  # type: ignore[no-any-return]  # one of the two
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise PydanticCustomError("threshold", "must be argmax or a number from 0 to 1, or be omitted")


Threshold = Annotated[
    Literal["argmax"] | float | None,
    PlainValidator(_threshold),  # one error at the field, not one for each type
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


class ChatTurn(BaseModel):
    """One turn of a chat to classify."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra=refused(
            together({"role": {"enum": ["user", "assistant"]}, "content": {"pattern": r"^\s*$"}})
        ),
    )

    role: Literal["system", "user", "assistant"] = Field(description="Author of the turn.")
    content: Text = Field(description="Text of the turn; blank only if it is the system's.")


ChatTurns = Annotated[list[ChatTurn], Field(min_length=1, max_length=MAX_TURNS)]


class PredictionRequest(BaseModel):
    """Body of POST /v1/runs/{id}/predictions; omitted fields default to the run's own values."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra=refused(
            *STEP_MISMATCH,
            together({"texts": {}, "messages": {}}),
            {"not": {"anyOf": [together({"texts": {}}), together({"messages": {}})]}},
        ),
    )

    messages: list[ChatTurns] = Field(
        default_factory=list,
        min_length=1,
        max_length=MAX_TEXTS,
        description="Chats to classify, in this order, each up to a user's turn, the last; for a "
        "run that was trained on chats, instead of `texts`. Each label is scored by the answer "
        "that it had in training.",
    )
    texts: list[Annotated[Text, Field(json_schema_extra={"pattern": NOT_BLANK})]] = Field(
        default_factory=list,
        validate_default=True,
        min_length=1,
        max_length=MAX_TEXTS,
        description="Texts to classify, in this order; for a run that was trained on texts, "
        "instead of `messages`.",
    )
    target: Literal["adapter", "checkpoint", "merged"] = Field(
        "adapter",
        description="Weights to use; merged: the model of the run's newest finished merge.",
    )
    step: int | None = Field(None, ge=0, le=2**31 - 1, description=STEP)
    template: str | None = Field(
        None, max_length=100, description="Prompt template; null: the run's."
    )
    threshold: Threshold = Field(
        None,
        description="argmax: predict the most probable label. A number: predict the positive label "
        "from that score on. Null: as the run's specification says, with the threshold fitted for "
        "its report.",
    )

    @field_validator("texts", mode="wrap")
    @classmethod
    def _one_of_two(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        """Require texts unless there are messages; the run's kind decides between them."""
        if value == [] and info.data.get("messages") != []:
            return value  # there are messages, or a flaw of theirs is named already
        return handler(value)


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
    messages: list[list[dict[str, str]]] = Field(default_factory=list)
    """Chats instead of texts, for a run that was trained on chats."""


class Scores(BaseModel):
    """Content of predictions.json: one entry per text, in the order of the request."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    probabilities: list[list[float]]
    """Probabilities over the task's labels."""
    truncated: list[bool]
    """True if the text's end was cut off to fit."""


class Prediction(BaseModel):
    """Prediction for one text."""

    model_config = ConfigDict(frozen=True)

    label: str = Field(description="Predicted label.")
    score: float = Field(description="Probability of the positive label.")
    probabilities: dict[str, float] = Field(description="Probability of each label; they sum to 1.")
    truncated: bool = Field(
        description="True if the text was too long, so that its end was cut off."
    )


def apply_threshold(task: PredictionTask, scores: Scores) -> list[Prediction]:
    """Return the predictions under the task's threshold.

    Below the threshold, the most probable of the other labels is predicted; of equally probable
    labels, the first in sorted order.
    """
    predictions = []
    for values, cut in zip(scores.probabilities, scores.truncated, strict=True):
        by_label = dict(zip(task.labels, values, strict=True))
        score = by_label[task.positive_label]
        if task.threshold is None:
            label = max(by_label, key=by_label.__getitem__)
        elif score >= task.threshold:
            label = task.positive_label
        else:
            negatives = [name for name in by_label if name != task.positive_label] or [*by_label]
            label = max(negatives, key=by_label.__getitem__)
        predictions.append(
            Prediction(label=label, score=score, probabilities=by_label, truncated=cut)
        )
    return predictions
