"""Dependencies of every use case, created once per process."""

from dataclasses import dataclass

from celery import Celery

from service.artifacts import ArtifactStore
from service.queue import celery_app
from service.settings import Settings
from service.store.database import Database


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    database: Database
    store: ArtifactStore
    celery: Celery

    @classmethod
    def make(cls, settings: Settings) -> "Context":
        return cls(
            settings,
            Database(settings.database_url),
            ArtifactStore(settings.artifacts_url),
            celery_app.make_app(settings),
        )
