"""Waiting for jobs, and the jobs beside training: evaluations, merges, predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio

from fairtune import _display as display
from fairtune import _protocol as protocol
from fairtune._async.downloads import Entry, download_file, download_files
from fairtune._async.transport import AsyncTransport
from fairtune._decoding import Model
from fairtune._progress import Progress
from fairtune._report import Report
from fairtune.errors import JobFailed, WaitTimeout
from fairtune.models import CapOptions, EvaluationView, MergeView, PredictionsView

if TYPE_CHECKING:
    import pandas

_MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 0.3, 2.0


class AsyncJob(Model):
    """Behaviour of everything that a worker works on: refresh, wait, cancel."""

    _transport: AsyncTransport
    _path: str
    _params: dict[str, Any]
    id: str
    status: Any

    @classmethod
    def _of(
        cls, transport: AsyncTransport, path: str, content: dict[str, Any], **params: str
    ) -> Self:
        job = cls.from_json(content)
        job._transport, job._path, job._params = transport, path, params
        return job

    async def refresh(self) -> Self:
        """Read the current state from the server into this object and return it."""
        self._read(await self._transport.get(self._path, **self._params))
        return self

    async def cancel(self) -> Self:
        """Cancel the job: immediately if it is queued, within seconds if it is running."""
        path = f"{self._path}/cancel"
        self._read(await self._transport.post(path, **self._params))
        return self

    async def wait(
        self, *, timeout: float | None = None, progress: bool = False, check: bool = True
    ) -> Self:
        """Wait until the job rests: succeeded, failed, cancelled or paused.

        `timeout` is in seconds. `progress` shows a line on standard error, or in a notebook a
        table. Raises WaitTimeout; and, unless `check` is False, JobFailed if it did not succeed.
        """
        shown = Progress(self) if progress else None
        seconds, waited = _MIN_POLL_SECONDS, 0.0
        start = anyio.current_time()
        try:
            while (await self.refresh()).status not in protocol.RESTING:
                if shown is not None:
                    shown.update()
                waited = anyio.current_time() - start
                if timeout is not None and waited >= timeout:
                    raise WaitTimeout(self, timeout)
                remaining = seconds if timeout is None else timeout - waited
                await anyio.sleep(min(seconds, remaining))
                seconds = min(1.3 * seconds, _MAX_POLL_SECONDS)
        finally:
            if shown is not None:
                shown.close()
        if check and self.status != "succeeded":
            raise JobFailed(self)
        return self


class AsyncEvaluation(AsyncJob, EvaluationView):
    """A scoring of a run's model on a split of a dataset."""

    async def report(
        self,
        *,
        caps: list[CapOptions] | None = None,
        confidence: float | None = None,
        min_f1: float | None = None,
        min_support: int | None = None,
        threshold: Literal["argmax", "fitted"] | float | None = None,
        base_evaluation: str | None = None,
    ) -> Report:
        """Return a bias report of the scores; by default with the settings of the run."""
        body = _report_request(caps, confidence, min_f1, min_support, threshold, base_evaluation)
        return await read_report(self._transport, f"{self._path}/reports", body)

    async def report_as(self, format: str, table: str | None = None, **settings: Any) -> str:
        """Return the report as text: json, html or csv; `settings` are those of `report`."""
        return await _report_text(
            self._transport, f"{self._path}/reports", protocol.without_none(settings), format, table
        )

    async def logs(self, tail: int | None = None) -> str:
        """Return the log of the evaluation, or its last `tail` lines."""
        return await self._transport.text(f"{self._path}/logs", tail=tail)

    async def download_predictions(self, file: str | Path) -> Path:
        """Download the scores of every row as a Parquet file; return its path."""
        return await download_file(self._transport, f"{self._path}/predictions", Path(file))

    async def to_pandas(self) -> "pandas.DataFrame":
        """Return the scores of every row. Needs pandas and pyarrow."""
        from io import BytesIO

        import pandas as pd

        response = await self._transport.request("GET", f"{self._path}/predictions")
        return pd.read_parquet(BytesIO(response.content))


class AsyncMerge(AsyncJob, MergeView):
    """A merged model: base model and adapter in one."""

    async def download(self, directory: str | Path, *, progress: bool = False) -> Path:
        """Download the merged model's files into `directory`; interrupted downloads resume."""
        run_path = self._path.removesuffix("/merged")
        urls: dict[str, tuple[str, Entry]] = {
            entry.path: (f"{run_path}/artifacts/merged/{self.id}/{entry.path}", entry)
            for entry in self.files
        }
        return await download_files(self._transport, urls, Path(directory), progress=progress)

    async def logs(self, tail: int | None = None) -> str:
        """Return the log of the merge, or its last `tail` lines."""
        return await self._transport.text(f"{self._path}/logs", tail=tail, **self._params)

    async def delete(self) -> None:
        """Delete the merged model permanently."""
        await self._transport.delete(self._path, **self._params)


class AsyncPredictions(AsyncJob, PredictionsView):
    """A classification of up to 256 texts or chats; `predictions` is None until it succeeds."""


def _report_request(
    caps: list[CapOptions] | None,
    confidence: float | None,
    min_f1: float | None,
    min_support: int | None,
    threshold: str | float | None,
    base_evaluation: str | None,
) -> dict[str, Any]:
    return protocol.without_none(
        {
            "caps": caps,
            "confidence": confidence,
            "min_f1": min_f1,
            "min_support": min_support,
            "threshold": threshold,
            "base_evaluation": base_evaluation,
        }
    )


async def read_report(
    transport: AsyncTransport, path: str, body: dict[str, Any] | None = None
) -> Report:
    """Return a report; in a notebook also its page."""
    page = None
    content = await _report_text(transport, path, body, "json", None)
    if display.in_notebook():
        page = await _report_text(transport, path, body, "html", None)
    return Report.from_answer(content, page)


async def _report_text(
    transport: AsyncTransport,
    path: str,
    body: dict[str, Any] | None,
    format: str,
    table: str | None,
) -> str:
    method = "GET" if body is None else "POST"
    params = {"format": format, "table": table}
    response = await transport.request(method, path, params=params, json=body)
    return response.text
