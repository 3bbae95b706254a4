"""A run: its state, events, results and what can be made from them.

Generated from fairtune/_async by tools/sync_client.py; do not edit.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from fairtune import _display as display
from fairtune import _protocol as protocol
from fairtune._predictions import PredictionList
from fairtune._report import Report
from fairtune._sync.downloads import Entry, download_files
from fairtune._sync.jobs import (
    Evaluation,
    Job,
    Merge,
    Predictions,
    read_report,
)
from fairtune._sync.listing import pages
from fairtune.errors import ProblemError, ServerUnreachable, Unavailable
from fairtune.models import (
    ArtifactView,
    CheckpointView,
    EventView,
    MetricSeries,
    PlanView,
    PromotionView,
    RunView,
    Turn,
)

Target = Literal["adapter", "checkpoint", "merged"]
Weights = Literal["base", "adapter", "checkpoint", "merged"]
Threshold = Literal["argmax"] | float
_LOG_FILE = "training.log"
_FILES_OF_ADAPTER = ("adapter_model.safetensors", "adapter_config.json", "README.md")


class Run(Job, RunView):
    """A fine-tuning run."""

    def pause(self) -> "Run":
        """Pause the run at its next optimizer step; a checkpoint is written first."""
        return self._control("pause")

    def resume(self) -> "Run":
        """Put a paused run back into the queue."""
        return self._control("resume")

    def retry(self, *, from_start: bool = False) -> "Run":
        """Put a failed run back into the queue; by default it resumes its last checkpoint."""
        return self._control("retry", from_start=True if from_start else None)

    def _control(self, action: str, **params: Any) -> "Run":
        self._read(self._transport.post(f"{self._path}/{action}", **params))
        return self

    def delete(self) -> None:
        """Delete the run with its files, evaluations, merges and predictions permanently."""
        self._transport.delete(self._path)

    def clone(self, **changes: Any) -> "Run":
        """Create a run with this run's specification, changed by `changes`."""
        content = self._transport.post(f"{self._path}/clone", changes, creates=True)
        return Run._of(self._transport, f"/v1/runs/{content['id']}", content)

    def plan_clone(self, **changes: Any) -> PlanView:
        """Return the plan of the run that `clone` would create."""
        content = self._transport.post(f"{self._path}/clone", changes, dry_run=True)
        return PlanView.from_json(content)

    def events(self, *, after: int = 0, follow: bool = True) -> Iterator[EventView]:
        """Yield the run's events in order; with `follow` until the run rests.

        A broken connection is opened again behind the last event, so that none is missed or
        repeated. Raises ServerUnreachable if that fails for some seconds.
        """
        if not follow:
            for event in self._stored_events(after):
                yield event
            return
        lines = protocol.EventLines(last_id=after)
        failures = 0
        while True:
            try:
                headers = {"Accept": "text/event-stream", "Last-Event-ID": str(lines.last_id)}
                with self._transport.http.stream(
                    "GET",
                    f"{self._path}/events",
                    headers=headers,
                    timeout=protocol.STREAM_TIMEOUT,
                ) as response:
                    self._transport.check(response)
                    for line in response.iter_lines():
                        failures = 0
                        content = lines.push(line)
                        if content is not None:
                            yield EventView.from_json(content)
                # The server ends a stream with the run; a proxy may end it before.
                if (self.refresh()).status in protocol.RESTING:
                    for event in self._stored_events(lines.last_id):
                        yield event
                    return
            except httpx.TransportError as error:
                failures += 1
                if failures > protocol.STREAM_FAILURES:
                    raise self._transport.unreachable(error) from error
                time.sleep(protocol.delay_seconds(failures))
            lines = protocol.EventLines(last_id=lines.last_id)

    def _stored_events(self, after: int) -> Iterator[EventView]:
        position: int | None = after
        while position is not None:
            page = self._transport.get(f"{self._path}/events", after=position, limit=1000)
            for entry in page["data"]:
                yield EventView.from_json(entry)
            position = page["next"] if page["has_more"] else None

    def metric_series(
        self,
        *names: str,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> MetricSeries:
        """Return metric series, by default all; long ones are thinned for drawing."""
        content = self._transport.get(
            f"{self._path}/metrics",
            name=list(names) or None,
            from_step=from_step,
            to_step=to_step,
            max_points=max_points,
        )
        return MetricSeries.from_json(content)

    def logs(self, tail: int | None = None) -> str:
        """Return the training log, or its last `tail` lines."""
        return self._transport.text(f"{self._path}/logs", tail=tail)

    def follow_logs(self, tail: int | None = None) -> Iterator[str]:
        """Yield the training log piece by piece until the run rests.

        `tail` limits what is there already to its last lines. Raises ServerUnreachable if the
        server does not answer for some minutes.
        """
        offset, failures = 0, 0
        is_first = True
        while True:
            try:
                is_resting = (self.refresh()).status in protocol.RESTING
                piece = self._log_from(offset)
            except (ServerUnreachable, Unavailable):
                failures += 1
                if failures > protocol.STREAM_FAILURES:
                    raise
                time.sleep(protocol.delay_seconds(failures))
                continue
            failures = 0
            if piece:
                offset += len(piece)
                text = piece.decode(errors="replace")
                yield protocol.last_lines(text, tail) if is_first and tail is not None else text
            elif is_resting:
                return
            is_first = False
            if not is_resting:
                time.sleep(1)

    def _log_from(self, offset: int) -> bytes:
        """Return the log's whole lines behind `offset` bytes, at the end also an unfinished one."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "Range": f"bytes={offset}-"}
        try:
            response = self._transport.request(
                "GET", f"{self._path}/artifacts/{_LOG_FILE}", headers=headers
            )
        except ProblemError as error:
            if error.status in {404, 416}:  # no log yet, or nothing new
                return b""
            raise
        content = response.content
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            content = content[offset:]
        end = content.rfind(b"\n") + 1
        return content[:end] or (content if self.status in protocol.RESTING else b"")

    def checkpoints(self) -> list[CheckpointView]:
        """Return the stored checkpoints by step."""
        content = self._transport.get(f"{self._path}/checkpoints")
        return [CheckpointView.from_json(entry) for entry in content["data"]]

    def artifacts(self) -> list[ArtifactView]:
        """Return the files of the result, except for checkpoints."""
        content = self._transport.get(f"{self._path}/artifacts")
        return [ArtifactView.from_json(entry) for entry in content["data"]]

    def download(
        self, directory: str | Path, *, checkpoint: int | None = None, progress: bool = False
    ) -> Path:
        """Download the adapter, or a checkpoint's files, into `directory`; peft opens it.

        An interrupted download resumes; each file's SHA-256 is verified.
        """
        urls: dict[str, tuple[str, Entry]]
        if checkpoint is None:
            urls = {
                entry.path: (f"{self._path}/artifacts/{entry.path}", entry)
                for entry in self.artifacts()
                if entry.path in _FILES_OF_ADAPTER
            }
            if not urls:  # answers 409, which says why
                self._transport.request("HEAD", f"{self._path}/adapter/download")
        else:
            path = f"{self._path}/checkpoints/{checkpoint}"
            stored = CheckpointView.from_json(self._transport.get(path))
            urls = {
                entry.path: (str(httpx.URL(f"{path}/download", params={"path": entry.path})), entry)
                for entry in stored.files
            }
        return download_files(self._transport, urls, Path(directory), progress=progress)

    def download_artifact(self, path: str, file: str | Path) -> Path:
        """Download one file of the result, by its path in `artifacts`, as `file`; return its path.

        An interrupted download resumes; the file's SHA-256 is verified. Raises NotFound.
        """
        for entry in self.artifacts():
            if entry.path == path:
                target = Path(file)
                urls: dict[str, tuple[str, Entry]] = {
                    target.name: (f"{self._path}/artifacts/{path}", entry)
                }
                return (download_files(self._transport, urls, target.parent)) / target.name
        # Answers 404, which says why.
        self._transport.request("HEAD", f"{self._path}/artifacts/{path}")
        raise AssertionError(f"{path} is a file of the run, but is not listed")

    def report(self) -> Report:
        """Return the certifying bias report, of the test split."""
        return read_report(self._transport, f"{self._path}/bias-report")

    def report_as(self, format: str, table: str | None = None) -> str:
        """Return the certifying report as text: json, html or csv."""
        return self._transport.text(f"{self._path}/bias-report", format=format, table=table)

    def evaluate(
        self,
        *,
        target: Weights | None = None,
        step: int | None = None,
        dataset: Any = None,
        split: Literal["train", "validation", "test"] | None = None,
        template: str | None = None,
        max_samples: int | None = None,
    ) -> Evaluation:
        """Queue a scoring of the run's model, by default of its adapter on the test split."""
        body = protocol.without_none(
            {
                "target": target,
                "step": step,
                "dataset_id": getattr(dataset, "id", dataset),
                "split": split,
                "template": template,
                "max_samples": max_samples,
            }
        )
        content = self._transport.post(f"{self._path}/evaluations", body, creates=True)
        return self._evaluation(content)

    def evaluations(self, limit: int | None = None) -> Iterator[Evaluation]:
        """Yield the run's evaluations, newest first."""
        path = f"{self._path}/evaluations"
        for evaluation in pages(self._transport, path, self._evaluation, limit):
            yield evaluation

    def evaluation(self, evaluation_id: str) -> Evaluation:
        """Return an evaluation."""
        path = f"{self._path}/evaluations/{protocol.segment(evaluation_id)}"
        return self._evaluation(self._transport.get(path))

    def _evaluation(self, content: dict[str, Any]) -> Evaluation:
        path = f"{self._path}/evaluations/{content['id']}"
        return Evaluation._of(self._transport, path, content)

    def merge(
        self,
        *,
        checkpoint: int | None = None,
        dtype: Literal["bfloat16", "float16", "float32"] | None = None,
        max_shard_size: str | None = None,
        base_weights: Literal["original", "dequantized"] | None = None,
    ) -> Merge:
        """Queue a merge of the adapter, or of a checkpoint, into the base model."""
        body = protocol.without_none(
            {
                "checkpoint": checkpoint,
                "dtype": dtype,
                "max_shard_size": max_shard_size,
                "base_weights": base_weights,
            }
        )
        content = self._transport.post(f"{self._path}/merged", body, creates=True)
        return self._merge(content)

    def merged(self, merge_id: str | None = None) -> Merge:
        """Return the newest merge, or the one with this id."""
        content = self._transport.get(f"{self._path}/merged", merge_id=merge_id)
        return self._merge(content)

    def _merge(self, content: dict[str, Any]) -> Merge:
        path = f"{self._path}/merged"
        return Merge._of(self._transport, path, content, merge_id=content["id"])

    def submit_predictions(
        self,
        texts: Sequence[str] | None = None,
        *,
        messages: Sequence[Sequence[Turn]] | None = None,
        target: Target | None = None,
        step: int | None = None,
        template: str | None = None,
        threshold: Threshold | None = None,
    ) -> Predictions:
        """Queue a classification of up to 256 texts, or chats for a run trained on chats."""
        body = protocol.without_none(
            {
                "texts": texts if texts is None else list(texts),
                "messages": messages if messages is None else [list(chat) for chat in messages],
                "target": target,
                "step": step,
                "template": template,
                "threshold": threshold,
            }
        )
        content = self._transport.post(f"{self._path}/predictions", body, creates=True)
        path = f"{self._path}/predictions/{content['id']}"
        return Predictions._of(self._transport, path, content)

    def predict(
        self,
        texts: Iterable[str] | None = None,
        *,
        messages: Iterable[Sequence[Turn]] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> PredictionList:
        """Classify any number of texts or chats and return a prediction for each, in order.

        They are sent in batches; `timeout` in seconds is each batch's. `options` are those of
        `submit_predictions`.
        """
        items: list[Any] = list(texts if texts is not None else messages or ())
        field = "messages" if texts is None else "texts"
        predictions = PredictionList(items)
        for batch in protocol.batches(items):
            arguments: dict[str, Any] = {field: batch, **options}
            job = self.submit_predictions(**arguments)
            job.wait(timeout=timeout)
            predictions.add(job)
        return predictions

    def promote(
        self, name: str, stage: str | None = None, *, override: str | None = None
    ) -> PromotionView:
        """Assign the release name `name@stage` to the run; `override` is a reason to ignore caps.

        Raises NotReleasable, with every hindrance, if the certifying report does not pass.
        """
        body: Mapping[str, Any] = protocol.without_none(
            {
                "name": name,
                "stage": stage,
                "override": None if override is None else {"reason": override},
            }
        )
        content = self._transport.post(f"{self._path}/promote", body, creates=True)
        return PromotionView.from_json(content)

    def _repr_html_(self) -> str:
        return display.run_table(self)
