"""Every setting, read from FAIRTUNE_* variables or a .env file."""

import io
import json
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from service import settings_urls
from service.domain.decoding import NotTextError, text_of
from service.domain.job_kinds import queue_names

_UNSET = Path("/dev/null")

DEVELOPMENT_PASSWORD = "fairtune-development-only"  # noqa: S105 - public on purpose
"""The database's default password in docker-compose.yml."""


class _EnvironmentFile(DotEnvSettingsSource):
    """A .env file in any encoding that `decoding` reads, as Windows' shells and editors write."""

    def _read_env_file(self, file_path: Path) -> Mapping[str, str | None]:
        try:
            text = text_of(file_path.read_bytes())
        except NotTextError as error:
            raise SettingsError(f"{file_path} {error.detail}") from error
        # Names are compared in lower case, as pydantic-settings does by default.
        values = dotenv_values(stream=io.StringIO(text))
        return {name.lower(): value for name, value in values.items()}


class Settings(BaseSettings):
    """Invariant: after construction every URL is absolute, so that child processes agree on it."""

    model_config = SettingsConfigDict(env_prefix="FAIRTUNE_", extra="ignore", frozen=True)

    data_dir: Path = Field(Path(".fairtune"), description="Parent directory of the defaults below.")
    database_url: str = Field(
        "", description="sqlite:///PATH or postgresql://…; default: DATA_DIR/fairtune.db"
    )
    broker_url: str = Field(
        "", description="redis://… or a directory as file:///PATH; default: DATA_DIR/broker"
    )
    artifacts_url: str = Field(
        "", description="file:///PATH or s3://BUCKET/PREFIX; default: DATA_DIR/artifacts"
    )
    models_dir: Path = Field(
        _UNSET,
        description="Directory of base models, one subdirectory each; default: DATA_DIR/models",
    )
    jobs_dir: Path = Field(
        _UNSET, description="Directory of the worker's job directories; default: DATA_DIR/jobs"
    )
    host: str = Field(
        "127.0.0.1",
        description="Address that the API listens on; any other than loopback requires an API key.",
    )
    port: int = Field(8000, ge=1, le=65535, description="Port that the API listens on.")
    allowed_models: Annotated[list[str], NoDecode] = Field(
        ["*"], description="Glob patterns of the base models that runs may use: A,B or a JSON list."
    )
    max_upload_bytes: int = Field(1 << 30, ge=1, description="Maximum size of a dataset upload.")
    max_body_bytes: int = Field(
        1 << 20, ge=1, description="Maximum size of any other request body."
    )
    request_timeout_seconds: float = Field(
        60,
        gt=0,
        description="Maximum time for a request's headers, and for its body; for an upload, the "
        "maximum pause between two parts of the file.",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [],
        description="Origins whose web pages may call the API: A,B or a JSON list.",
    )
    wait_seconds: float = Field(
        120,
        ge=0,
        description="How long a starting process waits for the database, its schema and the broker "
        "before it exits with status 1; 0: no waiting.",
    )
    queues: Annotated[list[str], NoDecode] = Field(
        queue_names(),
        description="Queues of a worker: A,B or a JSON list. A worker for predictions only answers "
        "them while others train.",
    )
    environment: Literal["development", "production"] = Field(
        "development",
        description="production refuses the development passwords, and requires an API key on "
        "loopback too.",
    )
    lease_seconds: float = Field(
        120,
        gt=0,
        description="If a worker has not renewed its lease for this long, another worker takes "
        "over its job.",
    )
    poll_seconds: float = Field(
        0.5, gt=0, description="Interval at which a supervisor reads its program's events."
    )
    sweep_seconds: float = Field(
        10, gt=0, description="Interval of the search for expired leases and waiting jobs."
    )
    stop_grace_seconds: float = Field(
        60, gt=0, description="Time between TERM and KILL when a program is stopped."
    )
    startup_limit_seconds: float = Field(
        3600,
        gt=0,
        description="A program without progress for this long before its first step, while it "
        "downloads or loads a model, is considered stalled and killed.",
    )
    step_limit_seconds: float = Field(
        1800, gt=0, description="The same limit between two steps of a training or an evaluation."
    )
    checkpoint_limit_seconds: float = Field(
        900, gt=0, description="The same limit while a checkpoint or the result is written."
    )
    storage_patience_seconds: float = Field(
        3600,
        gt=0,
        description="How long a worker whose program has ended tries to upload the job's files "
        "without any progress before it returns the job to the queue.",
    )

    store_quota_bytes: int = Field(
        0,
        ge=0,
        description="New runs are refused once the artifact store has this size; 0: no limit.",
    )
    weights_cache_bytes: int = Field(
        20_000_000_000,
        ge=0,
        description="Size of a worker's cache, in JOBS_DIR, of weights from a bucket for "
        "evaluations and predictions; 0: no cache, each job downloads them.",
    )
    checkpoint_days: float = Field(
        0,
        ge=0,
        description="Checkpoints of ended runs are deleted after this many days; 0: never. Results "
        "are kept.",
    )

    log_format: Literal["console", "json"] = Field(
        "console",
        description="console: readable lines, coloured on a terminal; json: one JSON object per "
        "line.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Minimum level of Fairtune's own log lines; libraries log warnings and errors.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Not as env_file of the configuration, which pydantic-settings would read as UTF-8 alone.
        return init_settings, env_settings, _EnvironmentFile(settings_cls, env_file=".env")

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        settings_urls.unambiguous(value)
        if value:
            settings_urls.check_database(value)
        return value

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("redis", "rediss", "file"):
            raise ValueError("use redis://HOST:PORT/0 or file:///PATH")
        return settings_urls.unambiguous(value)

    @field_validator("artifacts_url")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if value:
            settings_urls.check_store(value)
        return value

    @field_validator("allowed_models", "cors_origins", "queues", mode="before")
    @classmethod
    def _plain_list(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("["):
            return [part.strip() for part in value.split(",") if part.strip()]
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            raise ValueError('write a JSON list, ["A", "B"], or A,B') from None

    @field_validator("allowed_models")
    @classmethod
    def _some_models(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("an empty list would allow no model: write * for all, or patterns")
        return value

    @field_validator("queues")
    @classmethod
    def _known_queues(cls, value: list[str]) -> list[str]:
        if not value or not set(value) <= set(queue_names()):
            raise ValueError(f"name at least one of the queues {', '.join(queue_names())}")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            settings_urls.check_origin(origin)
        return value

    @model_validator(mode="after")
    def _no_development_password(self) -> Self:
        if self.environment == "production":
            for name in ("database_url", "broker_url"):
                if DEVELOPMENT_PASSWORD in settings_urls.passwords_in(getattr(self, name)):
                    raise ValueError(
                        f"FAIRTUNE_{name.upper()} has the public development password; choose "
                        "another, or set FAIRTUNE_ENVIRONMENT=development"
                    )
        return self

    @model_validator(mode="after")
    def _polls_within_the_lease(self) -> Self:
        if self.poll_seconds * 4 > self.lease_seconds:
            raise ValueError(
                "FAIRTUNE_POLL_SECONDS must be at most a quarter of FAIRTUNE_LEASE_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        root = self.data_dir.expanduser().resolve()
        defaults: dict[str, object] = {
            "database_url": f"sqlite:///{root / 'fairtune.db'}",
            "broker_url": (root / "broker").as_uri(),
            "artifacts_url": (root / "artifacts").as_uri(),
        }
        for name, default in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, default)
        for name in ("models_dir", "jobs_dir"):
            value: Path = getattr(self, name)
            path = root / name.removesuffix("_dir") if value == _UNSET else value.expanduser()
            object.__setattr__(self, name, path.resolve())
        object.__setattr__(self, "data_dir", root)
        # Hosting providers use `postgres://`; the driver is always psycopg 3.
        for prefix in ("postgres://", "postgresql://"):
            if self.database_url.startswith(prefix):
                url = "postgresql+psycopg://" + self.database_url.removeprefix(prefix)
                object.__setattr__(self, "database_url", url)
        return self

    @property
    def data_dir_option(self) -> str:
        """Return the option that makes another `fairtune` command use the same SQLite database."""
        if self.database_url != f"sqlite:///{self.data_dir / 'fairtune.db'}":
            return ""
        return f" --data-dir {shlex.quote(str(self.data_dir))}"

    @cached_property
    def variables(self) -> dict[str, str]:
        """Return the settings as FAIRTUNE_* variables, for a child process."""
        return {
            f"FAIRTUNE_{name.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
            for name, value in self.model_dump(mode="json").items()
        }
