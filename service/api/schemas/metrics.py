"""Metric series of a run."""

from pydantic import Field

from service.api.schemas.base import View


class MetricPoint(View):
    """A metric's value at an optimizer step."""

    step: int = Field(description="Optimizer step.")
    epoch: float = Field(description="Epochs completed at that step.")
    value: float = Field(description="Value of the metric.")


class MetricSeries(View):
    """Metric series of a run."""

    series: dict[str, list[MetricPoint]] = Field(
        description="Points by ascending step, by name of the metric."
    )
    stored_points: dict[str, int] = Field(
        {}, description="Number of points of the window that are stored, by name of the metric."
    )
    thinned: bool = Field(
        False,
        description="True if a series was thinned to max_points: kept are its first and last point "
        "and, of equally long sections between them, the points with the smallest and the largest "
        "value.",
    )
    next_step: int | None = Field(
        None,
        description="With limit: from_step of the next request; null if the answer is complete.",
    )
