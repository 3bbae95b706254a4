"""What the API answers with about predictions."""

from typing import Self

from pydantic import Field

from service.api.schemas.jobs import JobView
from service.domain.prediction import Prediction, PredictionOrder
from service.store.predictions import FoundPrediction, ListedPrediction


class PredictionsEntry(JobView):
    """What was asked for and where it stands, without the texts and what became of them."""

    target: str = Field(description="adapter, checkpoint or merged")
    step: int = Field(description="Optimizer step of the weights.")
    merge_id: str | None = Field(description="The merge whose model it is, for the target merged.")
    template: str
    positive_label: str
    threshold: float | None = Field(
        description="A text is called positive when its score is at least this; null: the most "
        "probable label (argmax)."
    )
    percent: float = Field(description="Of the texts, 0 to 100.")
    queue_position: int | None = Field(
        description="1 is next, among predictions; null when not queued."
    )

    @classmethod
    def of_order(
        cls,
        found: FoundPrediction | ListedPrediction,
        order: PredictionOrder,
        queue_position: int | None,
        **fields: object,
    ) -> Self:
        return cls.of_job(
            found.id,
            found.job,
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
    predictions: list[Prediction] | None = Field(
        description="One for each text, in their order; null before they are there."
    )
