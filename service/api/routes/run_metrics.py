"""Metric series of a run."""

import csv
import io
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from service.api.dependencies import Ctx, RunId
from service.api.openapi import READS, TEXT, documented
from service.api.responses.negotiation import negotiate
from service.api.schemas.metrics import MetricPoint, MetricSeries
from service.domain.errors import NotAcceptable
from service.store import runs as run_rows
from service.store.tables import Metric

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])


@router.get(
    "/metrics",
    response_model=MetricSeries,
    responses={
        **READS,
        **documented(NotAcceptable),
        200: {"description": "The metric series.", "content": {"text/csv": TEXT}},
    },
    summary="Get the metric series of a run",
)
def get_metrics(
    request: Request,
    context: Ctx,
    run_id: RunId,
    name: Annotated[list[str] | None, Query(description="Return only these metrics.")] = None,
    format: Annotated[  # noqa: A002 - the API's name
        str | None,
        Query(
            pattern="^(json|csv)$",
            description="Format of the response: json or csv; by default the Accept header's.",
        ),
    ] = None,
) -> Any:
    """Return the metrics of a run, one value per step and metric."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        rows = run_rows.metrics(session, run_id, name)
    if negotiate(request, format, ("json", "csv")) == "csv":
        return Response(_csv(rows), media_type="text/csv")
    series: dict[str, list[MetricPoint]] = {}
    for row in rows:
        point = MetricPoint(step=row.step, epoch=row.epoch, value=row.value)
        series.setdefault(row.name, []).append(point)
    return JSONResponse(MetricSeries(series=series).model_dump())


def _csv(rows: Iterable[Metric]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "step", "epoch", "value"])
    writer.writerows((row.name, row.step, row.epoch, repr(row.value)) for row in rows)
    return text.getvalue()
