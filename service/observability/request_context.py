"""Which HTTP request something is done for: in log lines, in a job's row, on other threads."""

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

_request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """All that is done inside is done for this HTTP request; every log line there says so."""
    token = _request_id.set(request_id)
    try:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            yield
    finally:
        _request_id.reset(token)


def request_id() -> str | None:
    """The HTTP request that is being answered here; None in a worker, a sweep, a test.

    A worker's log lines carry the request of its job, but what it does, it does by itself.
    """
    return _request_id.get()


def carried(target: Callable[[], None]) -> Callable[[], None]:
    """`target` for a thread of its own, where its log lines carry the ids that are bound here.

    Threads do not inherit context variables.
    """
    context = contextvars.copy_context()
    return lambda: context.run(target)
