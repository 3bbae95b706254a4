"""Lines of logs: whoever writes them they look alike, carry ids and hold no secret."""

import logging
import sys
import threading
import warnings
from datetime import UTC, datetime

import pytest
import structlog
from sqlalchemy import text

from service.domain.errors import Unavailable
from service.observability import logs, request_context
from service.queue import celery_app
from service.settings import Settings
from service.store.database import Database
from tests.support.growth import assert_linear
from tests.support.log_lines import caught

log = structlog.get_logger("service.some")


def test_a_line_of_ours_and_one_of_a_library_are_alike():
    before = datetime.now(UTC)
    with caught("worker") as lines:
        log.info("said", step=3)
        logging.getLogger("celery.worker").warning("lost %s", "the broker")
        logging.getLogger("sqlalchemy.pool").info("noise")
        log.debug("noise")
    ours, theirs = lines.all()
    assert list(ours)[:5] == list(theirs) == ["timestamp", "level", "event", "logger", "part"]
    assert [ours[name] for name in ("level", "event", "logger", "part", "step")] == [
        "info",
        "said",
        "service.some",
        "worker",
        3,
    ]
    assert (theirs["level"], theirs["event"]) == ("warning", "lost the broker")
    assert (theirs["logger"], theirs["part"]) == ("celery.worker", "worker")
    assert ours["timestamp"].endswith("Z")
    assert before <= datetime.fromisoformat(ours["timestamp"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", "diwewe"), ("info", "iwewe"), ("warning", "wewe"), ("error", "ee")],
)
def test_the_level_is_for_our_lines_and_libraries_speak_from_warning_on(level, shown):
    with caught(level=level) as lines:
        for logger in (log, logging.getLogger("uvicorn.error")):
            for name in ("debug", "info", "warning", "error"):
                getattr(logger, name)("x")
    assert "".join(line["level"][0] for line in lines.all()) == shown


def test_lines_to_read_hold_the_same():
    with caught(log_format="console") as lines, request_context.request("req_1"):
        log.info("said", step=3)
        logging.getLogger("celery").warning("lost")
    ours, theirs = lines.text.splitlines()
    assert ours.endswith("part=api step=3 request_id=req_1")
    assert "said" in ours
    assert "[service.some]" in ours
    assert "lost" in theirs
    assert "[celery]" in theirs
    assert "\x1b" not in lines.text  # colours are for terminals


SECRETS = [
    "postgresql://user:geheim@host/name",
    "redis://:geheim@host:6379/0",
    "redis://:ge/he#im@host:6379/0",
    "postgresql+psycopg://user:ge@he:im@host/name",
    "HTTPS://user:geheim@host",
    "postgresql://user:ge\"he'im@host/name",
    "host=db password=geheim user=x",
    "{'password': 'geheim'}",
    "Authorization: Bearer geheim",
    "b'authorization', b'bearer geheim'",
    "ft_01j000000000000000000000ge_heimheimheimheim",
    "hf_geheimgeheimgeheimgeheim",
    "redis://:ge heim@host:6379/0",
    "postgresql://user:hun ge@heim@host/name and more",
    "PGPASSWORD=geheim",
    "POSTGRES_PASSWORD: geheim",
    "host=db sslpassword=geheim",
    "passwd=geheim",
    "requirepass geheim",
    "['redis-server', '--requirepass', 'geheim']",
    "Authorization: Basic geheim==",
    "{'Authorization': 'Basic geheim=='}",
    "HF_TOKEN=geheim",
    "{'HF_TOKEN': 'ge heim'}",
    "REDISCLI_AUTH=geheim",
    "password='hun geheim' user=x",
    "password=hun,geheim user=x",
    'password="hun\\"geheim" user=x',
    "password='hun''geheim' user=x",
    "password='never closed geheim",
    '{"password": "hun geheim"}',
    '"{\\"password\\": \\"hun geheim\\"}"',
]


LINES = [
    (before + unit * 8, after)
    for before in ("", "password=", "://a:", "authorization:", "requirepass ", "X_KEY='", "ft_")
    for unit in ("://", "://a:", "://a:b c", "://a:1 ", "://a:b'", "\\", "'", "@", " ", "password=")
    for after in ("", "@", "'@", "\n@")
]


@pytest.mark.parametrize(("unit", "after"), LINES)
def test_masking_takes_linear_time(unit, after):
    assert_linear(logs.mask, lambda n: unit * n + after, 500)


def raising(secret: str) -> None:
    raise RuntimeError(secret) from ValueError(secret)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("secret", SECRETS)
def test_no_line_holds_a_secret(secret, log_format):
    with caught(log_format=log_format) as lines:
        log.info(f"cannot reach {secret}")
        log.info("said", url=secret, error=ValueError(secret), several=[secret])
        logging.getLogger("kombu").error("no %s", secret)
        try:
            raising(secret)
        except RuntimeError:
            log.exception("failed")
            logging.getLogger("celery").exception("failed")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(secret, stacklevel=1)
    assert lines.text.count("***") >= 9
    assert "heim" not in lines.text


def test_errors_of_database_and_broker_hold_no_password(tmp_path):
    settings = Settings(
        data_dir=tmp_path,
        database_url="postgresql://user:geheim@127.0.0.1:1/name",
        broker_url="redis://:geheim@127.0.0.1:1/0",
    )
    with caught() as lines:
        try:
            with Database(settings.database_url).read() as session:
                session.execute(text("SELECT 1"))
        except Unavailable:
            log.exception("database away")
        try:
            celery_app.notify(celery_app.make_app(settings), celery_app.QUEUE)
        except Unavailable:
            log.exception("broker away")
    away = lines.all()
    assert [line["event"] for line in away] == ["database away", "broker away"]
    assert all("refused" in line["exception"] for line in away)
    assert "geheim" not in lines.text


@pytest.mark.parametrize(
    "harmless",
    [
        "http://127.0.0.1:8000/docs",
        "sqlite:////data/fairtune.db",
        "redis://host:6379/0",
        "mail someone@example.org about http://host:80/x",
        "ft_count and run_01j00000000000000000000000",
        "see http://host:80/x or write to someone@example.org",
        "password authentication failed for user 'x'",
        "token=3 pad_token='<pad>' max_new_tokens: 5",
        "authorization failed",
    ],
)
def test_what_is_no_secret_stays(harmless):
    assert logs.mask(harmless) == harmless


@pytest.mark.parametrize("sign", ["\\", '"', "a-", "@", " ", "password="])
def test_a_long_line_is_masked_in_one_pass(sign):
    """Hours, or days, where a pattern goes back and forth."""
    masked = logs.mask(f"password='{sign * 20_000} x://u:{sign * 20_000}")
    assert masked == "password=***"


def test_an_exception_is_one_line_without_values_of_variables():
    with caught() as lines:
        written = "what a user " + "wrote"
        try:
            written.index("else")
        except ValueError:
            log.exception("failed")
    (line,) = lines.all()
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: substring not found")
    assert "what a user wrote" not in lines.text


def test_what_nobody_catches_is_a_line_too():
    with caught() as lines:
        thread = threading.Thread(target=lambda: 1 / 0, name="sweep")
        thread.start()
        thread.join()
        try:
            raise RuntimeError("postgresql://u:geheim@h/d")  # noqa: TRY301
        except RuntimeError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    on_thread, on_main = lines.all("uncaught error")
    assert on_thread["thread"] == "sweep"
    assert "ZeroDivisionError" in on_thread["exception"]
    assert on_main["exception"].endswith("RuntimeError: postgresql://u:***@h/d")


def test_a_thread_carries_what_was_bound_where_it_was_made():
    with caught() as lines:
        with (
            request_context.request("req_1"),
            structlog.contextvars.bound_contextvars(run_id="run_1"),
        ):
            seen: list[str | None] = []

            def act() -> None:
                seen.append(request_context.request_id())
                log.info("carried")

            threads = [
                threading.Thread(target=request_context.carried(act)),
                threading.Thread(target=lambda: log.info("bare")),
            ]
        for thread in threads:
            thread.start()
            thread.join()
    assert seen == ["req_1"]
    (carried,) = lines.all("carried")
    assert (carried["request_id"], carried["run_id"]) == ("req_1", "run_1")
    (bare,) = lines.all("bare")
    assert "request_id" not in bare
    assert request_context.request_id() is None


def test_libraries_with_handlers_of_their_own_are_adopted():
    theirs = logging.getLogger("a_training_library")
    theirs.addHandler(logging.NullHandler())
    theirs.propagate = False
    with caught() as lines:
        theirs.warning("not heard")
        logs.adopt_libraries()
        theirs.warning("heard")
    assert [line["event"] for line in lines.all()] == ["heard"]
