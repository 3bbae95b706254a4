"""Bias reports of runs and of evaluations, and comparisons of models."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Path, Query, Request, Response

from service.api import examples
from service.api.dependencies import Ctx, RunId
from service.api.json_body import JsonRoute
from service.api.openapi import TEXT, WRITES, Responses, busy, documented
from service.api.responses import negotiation
from service.context import Context
from service.datasets.rows import Split
from service.domain.errors import InvalidRequest, NotAcceptable
from service.fairness import html, tables
from service.fairness.schema import BiasReport
from service.fairness.schema_compare import Comparison
from service.usecases.reports import build
from service.usecases.reports import compare as comparisons
from service.usecases.reports.build import BuiltReport
from service.usecases.reports.options import ReportRequest

router = APIRouter(tags=["reports"], route_class=JsonRoute)

_TABLES = {
    "bias": ("bias_metrics.csv", tables.bias_csv),
    "performance": ("performance_metrics.csv", tables.performance_csv),
}
_BUSY = busy("two reports are being computed and six requests are waiting")
_FORMATS: Responses = {
    200: {
        "description": "The report: JSON, one self-contained HTML page, or one of two CSV tables.",
        "content": {"text/html": TEXT, "text/csv": TEXT},
    },
    **documented(NotAcceptable),
    **_BUSY,
}
ReportFormat = Annotated[
    Literal["json", "html", "csv"] | None,
    Query(description="Format of the response; by default the Accept header's."),
]
Table = Annotated[
    Literal["bias", "performance"] | None,
    Query(
        description="Table of a CSV report: bias (default), the error rates by group as in "
        "bias_metrics.csv; or performance, the metrics of all rows as in performance_metrics.csv. "
        "Refused with other formats."
    ),
]


@router.get(
    "/v1/runs/{run_id}/bias-report",
    responses={**WRITES, **_FORMATS},
    response_model=BiasReport,
    summary="Get the bias report of a run",
)
def get_bias_report(
    request: Request,
    context: Ctx,
    run_id: RunId,
    format: ReportFormat = None,  # noqa: A002 - the API's name
    table: Table = None,
) -> Response:
    """Return the report that certifies the run: error rates by group, intervals, cap verdicts.

    As JSON it is the file stored at the end of the run, byte for byte, in the schema version of
    that time. A CSV table links the other one in its Link header. Answers 409 if the run has no
    report.
    """
    chosen = _negotiate(request, format, table)
    if chosen == "json":
        content = build.certificate(context, run_id).content
        return _response(content, chosen)
    report = build.certified(context, run_id)
    response = _report_response(context, report, chosen, table, run_id)
    if chosen == "csv":
        alternate = next(name for name in _TABLES if name != (table or "bias"))
        link = f'<?format=csv&table={alternate}>; rel="alternate"; type="text/csv"'
        response.headers["Link"] = link
    return response


@router.post(
    "/v1/runs/{run_id}/evaluations/{eval_id}/reports",
    responses={**WRITES, **_FORMATS},
    response_model=BiasReport,
    summary="Compute a report on an evaluation",
)
def make_report(
    request: Request,
    context: Ctx,
    run_id: RunId,
    eval_id: Annotated[str, Path(description="Identifier of the evaluation.")],
    body: Annotated[ReportRequest | None, Body(openapi_examples=examples.REPORTS)] = None,
    format: ReportFormat = None,  # noqa: A002 - the API's name
    table: Table = None,
) -> Response:
    """Compute a report on an evaluation's stored predictions with the settings of the request.

    The report is not stored. It is marked `exploratory`, and gates nothing, unless the evaluation
    certifies the run and the settings are the run's. Answers 409 if predictions that it needs are
    missing, and says how to create them.
    """
    chosen = _negotiate(request, format, table)
    report = build.build(context, run_id, eval_id, body)
    return _report_response(context, report, chosen, table, eval_id)


@router.get(
    "/v1/compare",
    responses={
        **WRITES,
        **documented(NotAcceptable),
        **_BUSY,
        200: {
            "description": "The comparison: JSON, or one self-contained HTML page.",
            "content": {"text/html": TEXT},
        },
    },
    response_model=Comparison,
    summary="Compare runs and checkpoints",
)
def compare(
    request: Request,
    context: Ctx,
    runs: Annotated[
        str,
        Query(
            description="2 to 20 models, separated by commas: a run's id for its certifying "
            "evaluation, or RUN@STEP for a checkpoint. None may be listed twice, and their runs "
            "must have the same positive label.",
            examples=["run_01jz8x0m3c9v5k2q7w4t6y8n1a,run_01jz8x0m3c9v5k2q7w4t6y8n1b@120"],
            max_length=2000,
            json_schema_extra={"pattern": comparisons.PATTERN},
        ),
    ],
    split: Annotated[
        Split | None,
        Query(description="Split to compare on; by default the first run's certifying split."),
    ] = None,
    format: Annotated[  # noqa: A002 - the API's name
        Literal["json", "html"] | None,
        Query(description="Format of the response; by default the Accept header's."),
    ] = None,
) -> Response:
    """Compare runs and checkpoints on the same rows, with paired tests.

    Caps, min_f1 and confidence are the first run's; each model uses its own run's threshold rule.
    Answers 409 if a model was not scored on the split, and says how to do so.
    """
    chosen = negotiation.negotiate(request, format, ("json", "html"))
    comparison = comparisons.build(context, comparisons.parse(runs), split)
    if chosen == "json":
        return _response(comparison.model_dump_json(), chosen)
    return _page(html.render_compare(comparison), "comparison.html")


def _negotiate(request: Request, format_parameter: str | None, table: str | None) -> str:
    """Return the format. Raises NotAcceptable, and InvalidRequest for a table without CSV."""
    chosen = negotiation.negotiate(request, format_parameter, ("json", "html", "csv"))
    if table is not None and chosen != "csv":
        raise InvalidRequest.at("/query/table", "only csv has tables: set format=csv too")
    return chosen


def _report_response(
    context: Context, report: BuiltReport, chosen: str, table: str | None, name: str
) -> Response:
    """Render the report; `name`, the id of its subject, is part of the file name."""
    if chosen == "json":
        return _response(report.report.model_dump_json(), chosen)
    if chosen == "html":
        texts = build.texts(context, report.dataset, report.report)
        return _page(html.render_report(report.report, texts), f"{name}-bias_report.html")
    file_name, render = _TABLES[table or "bias"]
    return _response(render(report.report), chosen, f"{name}-{file_name}")


def _page(content: str, filename: str) -> Response:
    response = _response(content, "html", filename)
    response.headers["Content-Security-Policy"] = html.HEADER_POLICY
    return response


def _response(content: str | bytes, chosen: str, filename: str | None = None) -> Response:
    headers = {"Vary": "Accept"}
    if filename is not None:
        headers["Content-Disposition"] = f'inline; filename="{filename}"'
    return Response(content, media_type=negotiation.MEDIA_TYPES[chosen], headers=headers)
