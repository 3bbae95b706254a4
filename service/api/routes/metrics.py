"""Metrics for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from prometheus_client.exposition import choose_encoder

from service.ops.prometheus import Monitoring

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format 0.0.4, or OpenMetrics where Accept names it.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def metrics(request: Request, accept: Annotated[str, Header()] = "") -> Response:
    """Requests, jobs, queue and training speed. docs/monitoring.md lists them."""
    monitoring: Monitoring = request.app.state.monitoring
    encode, content_type = choose_encoder(accept)
    return Response(encode(monitoring.registry), headers={"Content-Type": content_type})
