"""Progress on standard error, or in a notebook."""

import sys
from typing import Any

from fairtune import _display as display

_WIDTH = 30


class _Line:
    """A line that a terminal rewrites; elsewhere a new line whenever its start changes."""

    def __init__(self) -> None:
        self._length = 0
        self._start = ""

    def show(self, start: str, details: str) -> None:
        text = f"{start} {details}".rstrip()
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text.ljust(self._length)}")
            self._length = len(text)
        elif start != self._start:
            sys.stderr.write(f"{text}\n")
        self._start = start
        sys.stderr.flush()

    def close(self) -> None:
        if self._length:
            sys.stderr.write("\n")
            sys.stderr.flush()


class Progress:
    """Shows the state of a run or another job while it is waited for."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._line = _Line()
        self._handle: Any = None

    def update(self) -> None:
        """Show the job's current state."""
        if display.in_notebook():
            self._update_notebook()
        else:
            self._line.show(f"{self._job.id} {_stage(self._job)}", _details(self._job))

    def _update_notebook(self) -> None:
        from IPython.display import display as show

        if self._handle is None:
            self._handle = show(self._job, display_id=True)
        else:
            self._handle.update(self._job)

    def close(self) -> None:
        """Show the final state and end the line."""
        self.update()
        self._line.close()


class ByteProgress:
    """Shows how much of a download has arrived."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._arrived = 0
        self._line = _Line()

    def advance(self, size: int) -> None:
        self._arrived += size
        percent = 100 if not self._total else min(100, 100 * self._arrived // self._total)
        tenth = percent // 10
        self._line.show(
            f"downloaded {10 * tenth} %"
            if not sys.stderr.isatty()
            else f"downloaded {percent:3} %",
            f"of {self._total / 1e6:.1f} MB",
        )

    def close(self) -> None:
        self._line.close()


def _stage(job: Any) -> str:
    return job.phase if job.status == "running" and job.phase else str(job.status)


def _details(job: Any) -> str:
    percent = job.percent or 0.0
    filled = int(_WIDTH * percent / 100)
    parts = [f"[{'#' * filled}{' ' * (_WIDTH - filled)}] {percent:3.0f} %"]
    if getattr(job, "total_steps", 0):
        parts.append(f"step {job.step}/{job.total_steps}")
    loss = (getattr(job, "metrics", None) or {}).get("loss")
    if isinstance(loss, float):
        parts.append(f"loss {loss:.3f}")
    if job.eta_seconds is not None and job.status == "running":
        parts.append(f"{job.eta_seconds:.0f} s left")
    return "  ".join(parts)
