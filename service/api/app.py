"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from service import __version__
from service.api import problems
from service.api.body_limit import BodyLimit
from service.api.dependencies import known_query
from service.api.feed import Feed
from service.api.hosts import LoopbackOnly
from service.api.routes import catalog, datasets, health, results, runs
from service.context import Context
from service.settings import Settings
from service.sweep import Sweeper

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
            {"name": "results", "description": "Checkpoints, files, evaluations, bias report."},
            {"name": "catalog", "description": "Presets, templates and models to name in a run."},
            {"name": "health", "description": "Is the service alive and ready?"},
        ],
    )
    app.state.context = context
    problems.install(app)
    app.add_middleware(LoopbackOnly)
    app.add_middleware(BodyLimit, limit=settings.max_upload_bytes)
    for module in (datasets, runs, results, catalog, health):
        app.include_router(module.router, dependencies=[Depends(known_query)])

    problems.describe(app)

    @app.get("/", include_in_schema=False)
    def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
