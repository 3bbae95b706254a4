"""What this process logs, caught as the JSON lines that a container would print."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from service.observability import logs


class Lines:
    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def all(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of that event so far. Each must be a JSON object."""
        found = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in found if event is None or line["event"] == event]


@contextmanager
def caught(
    part: str = "api", log_format: logs.Format = "json", level: logs.Level = "info"
) -> Iterator[Lines]:
    """Configure logging as a process of the service does; afterwards all is as it was."""
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs._OURS}
    hooks = sys.excepthook, threading.excepthook, sys.stderr, warnings.showwarning
    before = structlog.get_config() if structlog.is_configured() else None
    stream = io.StringIO()
    sys.stderr = stream
    try:
        logs.configure(part, log_format, level)
        yield Lines(stream)
    finally:
        logging.captureWarnings(capture=False)
        sys.excepthook, threading.excepthook, sys.stderr, warnings.showwarning = hooks
        root.handlers[:] = handlers
        root.setLevel(root_level)
        for name, value in levels.items():
            logging.getLogger(name).setLevel(value)
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)
