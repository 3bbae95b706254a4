"""A check whose outcome many event streams share."""

import asyncio
from collections.abc import Callable
from contextvars import Context

from starlette.concurrency import run_in_threadpool


class SharedCheck:
    """Carries out a check once for all who ask within `max_age` seconds of its start."""

    def __init__(self) -> None:
        self._checks: dict[str | None, tuple[float, asyncio.Task[bool]]] = {}

    async def outcome(self, subject: str | None, check: Callable[[], bool], max_age: float) -> bool:
        """Return the outcome of `check` for the subject. Raises what the check raises."""
        now = asyncio.get_running_loop().time()
        since, task = self._checks.get(subject, (now - max_age, None))
        if task is None or now - since >= max_age:
            self._checks = {
                other: entry for other, entry in self._checks.items() if now - entry[0] < max_age
            }
            # In no stream's context: the disconnect of one must not end the check of the others.
            task = asyncio.create_task(run_in_threadpool(check), context=Context())
            self._checks[subject] = now, task
        return await asyncio.shield(task)  # a stream that ends does not end those of others
