"""Bias reports: a run's own, others on stored predictions, and several models side by side."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response

from service.api import examples
from service.api.dependencies import Ctx
from service.api.json_body import JsonRoute
from service.api.problems import WRITES, Problem, documented
from service.api.responses import negotiation
from service.context import Context
from service.datasets.rows import Split
from service.domain.errors import InvalidRequest, NotAcceptable
from service.fairness import html, tables
from service.fairness.schema import BiasReport
from service.fairness.schema_compare import Comparison
from service.usecases.reports import build
from service.usecases.reports import compare as comparisons
from service.usecases.reports.build import Built
from service.usecases.reports.options import ReportRequest

router = APIRouter(tags=["reports"], route_class=JsonRoute)

_TEXT = {"schema": {"type": "string"}}
_TABLES = {
    "bias": ("bias_metrics.csv", tables.bias_csv),
    "performance": ("performance_metrics.csv", tables.performance_csv),
}
_BUSY: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "Not available at present; or urn:fairtune:busy: two are being made and six "
        "wait.",
        "model": Problem,
        "headers": {
            "Retry-After": {
                "schema": {"type": "integer"},
                "description": "Seconds; with urn:fairtune:busy.",
            }
        },
    }
}
FORMS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report: JSON, one self-contained HTML page, or one of two tables.",
        "content": {"text/html": _TEXT, "text/csv": _TEXT},
    },
    **documented(NotAcceptable),
    **_BUSY,
}
Form = Annotated[
    Literal["json", "html", "csv"] | None, Query(description="Left out: by the Accept header.")
]
Table = Annotated[
    Literal["bias", "performance"] | None,
    Query(
        description="Which table; for csv alone. bias (left out): error rates by group, as "
        "bias_metrics.csv. performance: all rows, as performance_metrics.csv."
    ),
]


@router.get(
    "/v1/runs/{run_id}/bias-report", responses={**WRITES, **FORMS}, response_model=BiasReport
)
def get_bias_report(
    request: Request,
    context: Ctx,
    run_id: str,
    format: Form = None,  # noqa: A002 - the API's name
    table: Table = None,
) -> Response:
    """Whom the tuned model gets wrong, how sure that is, and whether the caps hold.

    The report that certifies the run. 409 while the run has none, saying why. As JSON it is what
    was stored at the run's end, byte for byte, in the form of the version that wrote it. A table
    names the other one in its Link header.
    """
    form = _form(request, format, table)
    if form == "json":
        content = build.certificate(context, run_id).content
        return _answer(content, form)
    answer = _report(context, build.certified(context, run_id), form, table, run_id)
    if form == "csv":
        other = next(one for one in _TABLES if one != (table or "bias"))
        answer.headers["Link"] = f'<?format=csv&table={other}>; rel="alternate"; type="text/csv"'
    return answer


@router.post(
    "/v1/runs/{run_id}/evaluations/{eval_id}/reports",
    responses={**WRITES, **FORMS},
    response_model=BiasReport,
)
def make_report(
    request: Request,
    context: Ctx,
    run_id: str,
    eval_id: str,
    body: Annotated[ReportRequest | None, Body(openapi_examples=examples.REPORTS)] = None,
    format: Form = None,  # noqa: A002 - the API's name
    table: Table = None,
) -> Response:
    """A report on an evaluation's stored predictions, with the settings that you name.

    Nothing is scored and nothing is kept. It is `exploratory`, and gates nothing, unless it is of
    the evaluation that certifies the run and its settings are the run's. 409 where predictions that
    it needs are not there, saying how to make them.
    """
    form = _form(request, format, table)
    return _report(context, build.build(context, run_id, eval_id, body), form, table, eval_id)


@router.get(
    "/v1/compare",
    responses={
        **WRITES,
        **documented(NotAcceptable),
        **_BUSY,
        200: {
            "description": "The comparison: JSON, or one self-contained HTML page.",
            "content": {"text/html": _TEXT},
        },
    },
    response_model=Comparison,
)
def compare(
    request: Request,
    context: Ctx,
    runs: Annotated[
        str,
        Query(
            description="2 to 20, with commas between them: a run's id for the evaluation that "
            "certifies it, or RUN@STEP for the checkpoint of that step.",
            examples=["run_01jz8x0m3c9v5k2q7w4t6y8n1a,run_01jz8x0m3c9v5k2q7w4t6y8n1b@120"],
            max_length=2000,
        ),
    ],
    split: Annotated[
        Split | None, Query(description="Left out: the split that certifies the first run.")
    ] = None,
    format: Annotated[  # noqa: A002 - the API's name
        Literal["json", "html"] | None, Query(description="Left out: by the Accept header.")
    ] = None,
) -> Response:
    """Runs and checkpoints side by side on the same rows, with paired tests.

    Caps, min_f1 and confidence are the first run's; each model is decided by its own run's
    threshold rule. 409 where a model was not scored on the split, saying how to do so.
    """
    form = negotiation.wanted(request, format, ("json", "html"))
    made = comparisons.build(context, comparisons.parse(runs), split)
    if form == "json":
        return _answer(made.model_dump_json(), form)
    return _page(html.render_compare(made), "comparison.html")


def _form(request: Request, asked: str | None, table: str | None) -> str:
    """Raises NotAcceptable, and InvalidRequest where a table is named that would not be shown."""
    form = negotiation.wanted(request, asked, ("json", "html", "csv"))
    if table is not None and form != "csv":
        raise InvalidRequest.at("/query/table", "only csv has tables: say format=csv, too")
    return form


def _report(context: Context, built: Built, form: str, table: str | None, of: str) -> Response:
    """`of` is the id that the file is named after."""
    if form == "json":
        return _answer(built.report.model_dump_json(), form)
    if form == "html":
        texts = build.texts(context, built.dataset, built.report)
        return _page(html.render_report(built.report, texts), f"{of}-bias_report.html")
    name, render = _TABLES[table or "bias"]
    return _answer(render(built.report), form, f"{of}-{name}")


def _page(content: str, filename: str) -> Response:
    answer = _answer(content, "html", filename)
    answer.headers["Content-Security-Policy"] = html.HEADER_POLICY
    return answer


def _answer(content: str | bytes, form: str, filename: str | None = None) -> Response:
    headers = {"Vary": "Accept"}
    if filename is not None:
        headers["Content-Disposition"] = f'inline; filename="{filename}"'
    return Response(content, media_type=negotiation.MEDIA_TYPES[form], headers=headers)
