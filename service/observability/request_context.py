"""Id of the current HTTP request, for log lines, jobs' rows and other threads."""

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

_request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Bind the id of an HTTP request, which every log line inside then carries."""
    token = _request_id.set(request_id)
    try:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            yield
    finally:
        _request_id.reset(token)


def request_id() -> str | None:
    """Return the id of the request that is being answered; None in a worker, a sweep or a test.

    A worker's log lines carry the request of its job, but its actions are its own.
    """
    return _request_id.get()


def carried(target: Callable[[], None]) -> Callable[[], None]:
    """Wrap `target` for another thread, where its log lines carry the ids that are bound here.

    Threads do not inherit context variables.
    """
    context = contextvars.copy_context()
    return lambda: context.run(target)
