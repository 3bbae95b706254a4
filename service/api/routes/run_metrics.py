"""Metric series of a run."""

import csv
import io
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from service.api.dependencies import Ctx, RunId
from service.api.openapi import LARGE_READ, READS, TEXT, documented
from service.api.responses.files import BrokenOff
from service.api.responses.negotiation import negotiate
from service.api.schemas.metrics import MetricPoint, MetricSeries
from service.context import Context
from service.domain.errors import InvalidRequest, NotAcceptable, Unavailable
from service.store import metrics
from service.store import runs as run_rows
from service.store.metrics import Point, Window
from service.usecases import metric_series

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])


@router.get(
    "/metrics",
    response_model=MetricSeries,
    responses={
        **READS,
        **documented(NotAcceptable),
        **LARGE_READ,
        200: {"description": "The metric series.", "content": {"text/csv": TEXT}},
    },
    summary="Get the metric series of a run",
)
def get_metrics(
    request: Request,
    context: Ctx,
    run_id: RunId,
    name: Annotated[list[str] | None, Query(description="Return only these metrics.")] = None,
    from_step: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Return only points from this step on.")
    ] = None,
    to_step: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Return only points up to this step.")
    ] = None,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            le=10_000,
            description="Return at most this many points of each series, the first of the window, "
            "without thinning them; `next_step` continues. Not for csv.",
        ),
    ] = None,
    max_points: Annotated[
        int | None,
        Query(
            ge=metric_series.MIN_POINTS,
            le=10_000,
            description="Thin each series of more points than this, keeping its extremes; default: "
            f"{metric_series.DRAWABLE_POINTS:,}, or no thinning with `limit`. Not for csv.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the API's name
        str | None,
        Query(
            pattern="^(json|csv)$",
            description="Format of the response: json or csv; by default the Accept header's.",
        ),
    ] = None,
) -> Any:
    """Return the metrics of a run, one value per step and metric.

    As JSON, long series are thinned to what a page can draw, and `thinned` is true. A CSV file
    holds every point of the window and is sent while it is read.
    """
    window = Window(run_id, name, from_step, to_step)
    if negotiate(request, format, ("json", "csv")) == "csv":
        return _csv_response(context, window, {"limit": limit, "max_points": max_points})
    series = metric_series.read(context, window, limit=limit, max_points=max_points)
    points = {
        name: [MetricPoint(step=step, epoch=epoch, value=value) for _, step, epoch, value in rows]
        for name, rows in series.points.items()
    }
    view = MetricSeries(
        series=points,
        stored_points=series.stored,
        thinned=series.thinned,
        next_step=series.next_step,
    )
    return JSONResponse(view.model_dump())


def _csv_response(
    context: Context, window: Window, only_json: dict[str, int | None]
) -> StreamingResponse:
    for option, value in only_json.items():
        if value is not None:
            raise InvalidRequest.at(
                f"/query/{option}",
                f"{option} is for json; a CSV file holds every point: set from_step and to_step",
            )
    with context.database.read() as session:
        run_rows.get_run(session, window.run_id)
    pages = metrics.pages(context.database, window)
    first = next(pages)  # a failure before the first byte has a status of its own
    return StreamingResponse(_csv(chain([first], pages)), media_type="text/csv")


def _csv(pages: Iterator[list[Point]]) -> Iterator[str]:
    """Yield the file page by page. Raises BrokenOff if the database fails meanwhile."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "step", "epoch", "value"])
    try:
        for page in pages:
            writer.writerows((name, step, epoch, repr(value)) for name, step, epoch, value in page)
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    except Unavailable as error:
        raise BrokenOff(error.detail) from None
