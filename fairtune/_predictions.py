"""Predictions of any number of texts."""

from typing import TYPE_CHECKING, Any

from fairtune.models import Prediction, PredictionsView

if TYPE_CHECKING:
    import pandas


class PredictionList(list[Prediction]):
    """Predictions in the order of the texts or chats in `inputs`."""

    def __init__(self, inputs: list[Any]) -> None:
        super().__init__()
        self.inputs = inputs
        self.ids: list[str] = []
        """Identifiers of the requests that made the predictions."""
        self.positive_label: str | None = None
        self.threshold: float | None = None
        """Minimum score of a positive text; None: the label with the highest probability."""

    def add(self, job: PredictionsView) -> None:
        """Append the predictions of a finished request."""
        self.extend(job.predictions or ())
        self.ids.append(job.id)
        self.positive_label, self.threshold = job.positive_label, job.threshold

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a frame of inputs, labels, scores and a column per label. Needs pandas."""
        import pandas as pd

        column = "text" if all(isinstance(entry, str) for entry in self.inputs) else "messages"
        rows = [
            {
                column: entry,
                "label": prediction.label,
                "score": prediction.score,
                **{f"p_{label}": value for label, value in prediction.probabilities.items()},
                "truncated": prediction.truncated,
            }
            for entry, prediction in zip(self.inputs, self, strict=True)
        ]
        return pd.DataFrame(rows)
