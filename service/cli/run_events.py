"""Events of a run as lines of text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from service.cli.figures import printable

if TYPE_CHECKING:
    from fairtune.models import EventView

RATES = ("fpr", "fnr")


def describe(event: "EventView") -> str:
    """Return an event as one line without its time; it may hold characters from the data."""
    data = event.data
    match event.type:
        case "status":
            return " ".join(_status(data))
        case "phase":
            return f"{data.get('phase')}"
        case "metrics":
            return f"step {data.get('step')}: {', '.join(_figures(data.get('values') or {}))}"
        case "checkpoint":
            best = " (the best so far)" if data.get("step") == data.get("best_step") else ""
            return f"step {data.get('step')}{best}"
        case "evaluation":
            model = f"{data.get('target')} on {data.get('split')}"
            return f"{model}: {', '.join(_figures(data.get('metrics') or {}))}".rstrip(": ")
        case "artifact":
            file = data.get("file") or {}
            return f"{file.get('path')}, {file.get('size', 0):,} bytes"
        case "warning":
            return f"{data.get('code')}: {data.get('detail')}"
        case "log":
            return str(data.get("message"))
        case "rewound":
            return f"to step {data.get('step')}"
        case "promoted" | "withdrawn":
            return f"{data.get('name')}@{data.get('stage')}"
        case _:
            return ", ".join(f"{name} {value}" for name, value in data.items())


def line_of(event: "EventView") -> str:
    """Return an event as one line with its time, without characters that control a terminal."""
    return printable(f"{event.created_at:%H:%M:%S}  {event.type:<10}  {describe(event)}")


def group_rates(values: dict[str, float]) -> dict[tuple[str, str], float]:
    """Return the error rates by metric and group among the metrics of an evaluation."""
    return {
        (metric, group): value
        for name, value in values.items()
        for metric, slash, group in [name.removeprefix("eval_").partition("/")]
        if slash and metric in RATES
    }


def _status(data: dict[str, Any]) -> Iterator[str]:
    if data.get("kind") not in (None, "train"):
        yield f"{data['kind']}:"
    yield str(data.get("status"))
    if reason := data.get("reason"):
        yield f"({reason})"
    if by := data.get("by"):
        yield f"by {by}"


def _figures(values: dict[str, float | None]) -> Iterator[str]:
    rates = group_rates({name: value for name, value in values.items() if value is not None})
    for name, value in values.items():
        if "/" not in name and value is not None:
            yield f"{name} {value:.4g}"
    for (metric, group), value in rates.items():
        yield f"{metric.upper()} {group} {value:.3f}"
