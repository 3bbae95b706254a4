"""Metrics for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from prometheus_client.exposition import choose_encoder

from service.api.openapi import TEXT
from service.api.paths import METRICS
from service.ops.prometheus import Monitoring

router = APIRouter(tags=["health"])


@router.get(
    METRICS,
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus text format 0.0.4, or OpenMetrics if Accept requests it.",
            "content": {"text/plain": TEXT, "application/openmetrics-text": TEXT},
        }
    },
    summary="Get metrics for Prometheus",
)
def metrics(
    request: Request,
    accept: Annotated[
        str, Header(description="application/openmetrics-text selects OpenMetrics.")
    ] = "",
) -> Response:
    """Return metrics of requests, jobs, queues and training speed; see docs/monitoring.md."""
    monitoring: Monitoring = request.app.state.monitoring
    encode, content_type = choose_encoder(accept)
    return Response(encode(monitoring.registry), headers={"Content-Type": content_type})
