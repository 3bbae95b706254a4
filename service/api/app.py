"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from service import __version__
from service.api import openapi, problems, schema_rules
from service.api.dependencies import known_query
from service.api.middleware.abandoned_reads import AbandonedReads
from service.api.middleware.auth import Authenticate, bearer
from service.api.middleware.body_limit import BodyLimit
from service.api.middleware.request_log import RequestLog
from service.api.middleware.security_headers import SecurityHeaders, cors
from service.api.paths import PAGES
from service.api.responses.event_feed import Feed
from service.api.routes import (
    adapters,
    artifacts,
    catalog,
    checkpoints,
    datasets,
    evaluations,
    events,
    health,
    keys,
    merges,
    metrics,
    predictions,
    promotions,
    reports,
    run_control,
    run_metrics,
    runs,
)
from service.context import Context
from service.ops.prometheus import Monitoring
from service.queue.sweep import Sweeper
from service.settings import Settings

DESCRIPTION = """
Fine-tune a language model into a classifier and measure, with confidence intervals, which groups it
misclassifies. Upload a dataset, start a run on it, poll the run, and get its bias report.
"""


def create_app(settings: Settings) -> FastAPI:
    context = Context.make(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        feed = Feed(context.database)
        sweeper = Sweeper(settings, context.database, context.store, context.celery)
        app.state.feed = feed
        feed.start()
        sweeper.start()
        yield
        await feed.stop()
        sweeper.stop()
        context.database.dispose()

    app: FastAPI = FastAPIOffline(
        title="Fairtune",
        version=__version__,
        description=DESCRIPTION + schema_rules.RULES,
        lifespan=lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=[
            {"name": "datasets", "description": "Labelled texts for training and testing."},
            {"name": "adapters", "description": "Adapters that were trained elsewhere."},
            {"name": "runs", "description": "Start, follow and control fine-tuning runs."},
            {
                "name": "results",
                "description": "Checkpoints, files, evaluations, merged models, predictions.",
            },
            {"name": "reports", "description": "Bias reports and comparisons of models."},
            {"name": "releases", "description": "Release names of runs."},
            {"name": "catalog", "description": "Presets, templates and base models for runs."},
            {"name": "keys", "description": "API keys; for admins only."},
            {"name": "health", "description": "Liveness, readiness and metrics."},
        ],
    )
    app.state.context = context
    app.state.probes = health.probes(context)
    app.state.monitoring = Monitoring(context.database)
    problems.install(app)
    # The last one added sees a request first. CORS before authentication: preflight requests have
    # no key.
    app.add_middleware(AbandonedReads)
    app.add_middleware(
        Authenticate,
        database=context.database,
        host=settings.host,
        origins=settings.cors_origins,
    )
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors(settings.cors_origins))
    app.add_middleware(
        BodyLimit,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        timeout_seconds=settings.request_timeout_seconds,
    )
    app.add_middleware(RequestLog, monitoring=app.state.monitoring)
    app.add_middleware(SecurityHeaders)
    app.include_router(health.router, dependencies=[Depends(known_query)])
    for module in (
        datasets,
        adapters,
        runs,
        run_control,
        events,
        run_metrics,
        artifacts,
        checkpoints,
        evaluations,
        merges,
        predictions,
        reports,
        promotions,
        catalog,
        keys,
        metrics,
    ):
        app.include_router(
            module.router,
            dependencies=[Depends(bearer), Depends(known_query)],
            responses=openapi.PROTECTED,
        )

    openapi.install(app)

    for route in app.routes:  # the library serves its documentation pages for GET only
        if isinstance(route, APIRoute) and route.path in PAGES:
            route.methods = {"GET", "HEAD"}

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
