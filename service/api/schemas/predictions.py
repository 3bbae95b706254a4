"""Predictions for submitted texts."""

from typing import Self

from pydantic import Field

from service.api.schemas.jobs import JobView
from service.domain.prediction import Prediction, PredictionOrder
from service.store.predictions import ListedPrediction, StoredPrediction


class PredictionsEntry(JobView):
    """A prediction job without its texts and results."""

    target: str = Field(description="Model: adapter, checkpoint or merged.")
    step: int = Field(description="Optimizer step of the weights.")
    merge_id: str | None = Field(description="Merge whose model is used, if the target is merged.")
    template: str = Field(description="Prompt template.")
    positive_label: str = Field(description="Label that scores and threshold refer to.")
    threshold: float | None = Field(
        description="Minimum score at which a text is classified as positive; null: the most "
        "probable label wins (argmax)."
    )
    percent: float = Field(description="Scored share of the texts, 0 to 100.")
    queue_position: int | None = Field(
        description="Position in the queue of predictions, 1 being next; 1,000 stands for every "
        "later one, too; null unless queued."
    )

    @classmethod
    def of_order(
        cls,
        prediction: StoredPrediction | ListedPrediction,
        order: PredictionOrder,
        queue_position: int | None,
        **fields: object,
    ) -> Self:
        return cls.of_job(
            prediction.id,
            prediction.job,
            queue_position,
            target=order.target,
            step=order.step,
            merge_id=order.merge,
            template=order.template,
            positive_label=order.positive_label,
            threshold=order.threshold,
            **fields,
        )


class PredictionsView(PredictionsEntry):
    """A prediction job with its results."""

    predictions: list[Prediction] | None = Field(
        description="One result per text, in the order of the request; null until the job has "
        "succeeded."
    )
