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
