"""Logging: structlog in front of the standard library, and one formatter for all lines.

Lines of uvicorn, Celery, SQLAlchemy and the training libraries are formatted like our own: as JSON,
one object a line, or readable. Each line carries the context variables bound in structlog
(request_id, run_id, job_id, token). Values of local variables are never logged: they may be users'
texts. Secrets are masked in every line, whatever its source.
"""

import logging
import re
import sys
import threading
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

# Our loggers; those of libraries speak from `warning` on, whatever the level.
_OURS = ("service", "worker", "fairtune", "__main__")
_FIRST = ("timestamp", "level", "event", "logger", "part")
_LAST = ("run_id", "job_id", "token", "request_id", "exception")
_MASKED = "***"
# A value after = or a colon: between quotes, which may be escaped themselves (a string's repr), to
# the end of the line where they are not closed; or up to a blank. Too much is masked rather than a
# tail left. The ++ and *+ keep a hostile line from taking more than one pass.
_CLOSED = r"""(?:"(?:\\++.|[^"\\\n])*+"|'(?:\\++.|[^'\\\n])*+')+"""
_VALUE = rf"""(?:\\++(?P<q>["']).*?\\(?P=q)|{_CLOSED}|["'].*|\S*[^\s"'\])}},;]|\S+)"""
_IS = r"""\\*["']?\s*[=:]\s*"""
# A URL's user, before its password. Of a password only the end is searched for, once for all URLs
# that share it: a pattern would search again from each, and a line without an @ would take hours.
_USER = re.compile(r"""://[^\s/?#@:'"]*:""")
_PORT = re.compile(r"\d{1,5}\b")
_SPACE = re.compile(r"\s")
_PASSWORD_END = re.compile(r"""[\n"'@]""")
_SECRETS = (
    (re.compile(rf"((?:password|passwd|passphrase){_IS}){_VALUE}", re.IGNORECASE), rf"\1{_MASKED}"),
    # Redis' option, in a line of its configuration and in a list of arguments.
    (re.compile(rf"""(\brequirepass["']?[\s,=:]+){_VALUE}""", re.IGNORECASE), rf"\1{_MASKED}"),
    # Variables of the environment. In small letters these words are the training's, too.
    (re.compile(rf"(_(?:TOKEN|SECRET|KEY|AUTH){_IS}){_VALUE}"), rf"\1{_MASKED}"),
    (
        re.compile(
            r"""(\bauthorization\\?["']?\s*[:=,]\s*b?\\?["']?(?:[\w-]+\s+)?)[^\s"',;]+""",
            re.IGNORECASE,
        ),
        rf"\1{_MASKED}",
    ),
    (re.compile(r"(\bbearer\s+)[^\s\"',;]+", re.IGNORECASE), rf"\1{_MASKED}"),
    # API keys of ours and tokens of the model hub, without a word before them.
    (re.compile(r"\b(ft|hf)_[A-Za-z0-9_-]{16,}"), rf"\1_{_MASKED}"),
)


def mask(text: str) -> str:
    """Mask passwords in URLs, connection strings and settings, and tokens and API keys.

    The time is proportional to the length of the text.
    """
    if "://" in text and "@" in text:
        text = _mask_urls(_mask_urls(text, _last_at), _next_at)
    for secret, instead in _SECRETS:
        text = secret.sub(instead, text)
    return text


def _last_at(text: str, start: int) -> tuple[int | None, int]:
    """Find the last @ before a space: a password that is not percent-encoded may hold an @."""
    end = _end_of_word(text, start)
    at = text.rfind("@", start + 1, end)
    return (None if at < 0 else at), end


def _next_at(text: str, start: int) -> tuple[int | None, int]:
    """Find the @ after a password with a space in it, unless what is there looks like a port."""
    if _PORT.match(text, start):
        return None, start
    found = _PASSWORD_END.search(text, start)
    stop = len(text) if found is None else found.start()
    if found is None or found[0] != "@" or stop == start:
        return None, stop
    return max(stop, text.rfind("@", stop, _end_of_word(text, stop))), stop


def _end_of_word(text: str, start: int) -> int:
    space = _SPACE.search(text, start)
    return len(text) if space is None else space.start()


def _mask_urls(text: str, find_end: Callable[[str, int], tuple[int | None, int]]) -> str:
    """Mask the password after each user, up to the @ that `find_end` returns.

    Its second result is the end of what was searched: no start before it has an @ there.
    """
    parts: list[str] = []
    copied = position = searched = 0
    while (user := _USER.search(text, position)) is not None:
        position = user.end() - 1  # its colon may begin the next ://
        if user.end() < searched:
            continue
        at, searched = find_end(text, user.end())
        if at is None:
            continue
        parts += text[copied : user.end()], _MASKED
        copied = position = at
        searched = at
    return "".join([*parts, text[copied:]])


def configure(part: str, log_format: Format = "console", level: Level = "info") -> None:
    """Log to standard error, each line marked with the process's `part` (api, worker, train).

    Once a process. What no code catches becomes a line too, instead of a bare traceback.
    """

    def marked(_logger: Any, _method: str, line: EventDict) -> EventDict:
        line["part"] = part
        return line

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        marked,
        structlog.processors.TimeStamper(
            fmt="iso" if log_format == "json" else "%Y-%m-%dT%H:%M:%SZ", utc=True
        ),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Plain text, one frame's file, line and source after another.
                structlog.processors.format_exc_info,
                _masked,
                _ordered,
                _renderer(log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    number = getattr(logging, level.upper())
    root.setLevel(max(number, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(number)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_on_thread


def adopt_libraries() -> None:
    """Replace libraries' own log handlers by ours. Call it once the libraries are loaded."""
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _masked(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in line.items():
        if value is not None and not isinstance(value, bool | int | float):
            line[key] = mask(str(value)).rstrip()
    return line


def _ordered(
    _logger: Any, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Order the fields: common ones first, the line's own, then ids."""
    last = {key: line.pop(key) for key in _LAST if key in line}
    return {key: line.pop(key) for key in _FIRST if key in line} | dict(line) | last


def _renderer(log_format: Format) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        pad_event_to=24,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger("fairtune").critical("uncaught error", exc_info=error)


def _uncaught_on_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
        thread = None if arguments.thread is None else arguments.thread.name
        structlog.get_logger("fairtune").critical(
            "uncaught error", thread=thread, exc_info=arguments.exc_value
        )
