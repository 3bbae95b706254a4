"""Dependencies of every use case, created once per process."""

from dataclasses import dataclass

from celery import Celery

from service.artifacts import ArtifactStore
from service.ops.paced_figure import PacedFigure
from service.queue import celery_app
from service.settings import Settings
from service.store import retention
from service.store.database import Database

# Every request thread (AnyIO has 40), the sweep, the event feed and the probes can have a session
# at the same time: a request never waits for a connection that a slow one holds.
_MAX_SESSIONS = 50
_READ_SECONDS = 30.0
"""Limit of each statement of a read; longer ones would hold threads for requests given up."""


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    database: Database
    store: ArtifactStore
    celery: Celery
    used_bytes: PacedFigure[int]
    """Bytes of all files that rows name, for the quota."""

    @classmethod
    def make(cls, settings: Settings) -> "Context":
        database = Database(
            settings.database_url, max_sessions=_MAX_SESSIONS, read_seconds=_READ_SECONDS
        )

        def used_bytes() -> int:
            with database.read() as session:
                return retention.used_bytes(session)

        return cls(
            settings,
            database,
            ArtifactStore(settings.artifacts_url),
            celery_app.make_app(settings),
            PacedFigure(used_bytes),
        )
