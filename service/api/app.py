"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from service import __version__
from service.api import problems
from service.api.dependencies import known_query
from service.api.middleware.auth import Authenticate, bearer
from service.api.middleware.body_limit import BodyLimit
from service.api.middleware.request_log import RequestLog
from service.api.middleware.security_headers import PAGES, SecurityHeaders, cors
from service.api.responses.event_feed import Feed
from service.api.routes import (
    catalog,
    datasets,
    evaluations,
    health,
    keys,
    merges,
    metrics,
    predictions,
    promotions,
    reports,
    results,
    runs,
)
from service.context import Context
from service.ops.prometheus import Monitoring
from service.queue.sweep import Sweeper
from service.settings import Settings

DESCRIPTION = """
Fine-tune a language model into a classifier and learn, with confidence intervals, whom it gets
wrong. Upload a dataset, start a run on it, poll the run, fetch its bias report.
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
        description=DESCRIPTION,
        lifespan=lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=[
            {"name": "datasets", "description": "Labelled texts to train and test on."},
            {"name": "runs", "description": "Start a fine-tuning run, follow it, steer it."},
            {"name": "results", "description": "Checkpoints, files, evaluations."},
            {"name": "reports", "description": "Bias reports, also asked for again; comparisons."},
            {"name": "releases", "description": "Names that runs are served by."},
            {"name": "catalog", "description": "Presets, templates and models to name in a run."},
            {"name": "keys", "description": "API keys: who may call. For admins."},
            {"name": "health", "description": "Is the service alive and ready?"},
        ],
    )
    app.state.context = context
    app.state.probes = health.probes(context)
    app.state.monitoring = Monitoring(context.database)
    problems.install(app)
    # The last one added sees a request first. CORS before keys: a browser asks leave without one.
    app.add_middleware(
        Authenticate,
        database=context.database,
        host=settings.host,
        origins=settings.cors_origins,
    )
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors(settings.cors_origins))
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(RequestLog, monitoring=app.state.monitoring)
    app.add_middleware(SecurityHeaders)
    app.include_router(health.router, dependencies=[Depends(known_query)])
    for module in (
        datasets,
        runs,
        results,
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
            responses=problems.PROTECTED,
        )

    problems.describe(app)

    for route in app.routes:  # the library's documentation pages, which it gives GET alone
        if isinstance(route, APIRoute) and route.path in PAGES:
            route.methods = {"GET", "HEAD"}

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
