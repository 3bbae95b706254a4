"""`fairtune demo`: fine-tune the bundled model on the bundled sample through the HTTP API."""

import contextlib
import hashlib
import signal
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from service.cli import temporary_server
from service.domain.base_models import BUNDLED_MODEL
from service.fairness.schema import BiasReport
from service.fairness.text import print_report
from service.settings import Settings

SPLITS = ("train", "validation", "test")
RUN: dict[str, Any] = {
    "name": "demo",
    "preset": "quick_test",
    "base_model": BUNDLED_MODEL,
    # The preset is for thousands of rows. 360 rows are 23 of its steps, fewer than its warm-up of
    # 50; a model this small needs them just to learn the format of the answer. Hence 90 small steps
    # at a higher learning rate. With 135 million parameters memory does not matter.
    "training": {
        "num_train_epochs": 2,
        "learning_rate": 2e-3,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "per_device_eval_batch_size": 32,
        "warmup_steps": 4,
        "max_seq_length": 256,
        "logging_steps": 1,
        "gradient_checkpointing": False,
    },
}
INTERRUPTED = 130
_POLL_SECONDS = 0.5
console = Console(highlight=False)


@contextlib.contextmanager
def service(settings: Settings) -> Iterator[httpx.Client]:
    """Run `fairtune up` on a free port, yield a client for it, and stop it at the end.

    So a running service is not disturbed.
    """
    with temporary_server.started(settings, "demo") as address:
        headers = {} if address.key is None else {"Authorization": f"Bearer {address.key}"}
        with httpx.Client(
            base_url=address.url, headers=headers, timeout=60, trust_env=False
        ) as client:
            yield client


def _checked(response: httpx.Response) -> Any:
    if response.is_error:
        raise SystemExit(f"{response.request.method} {response.url}: {response.text}")
    return response.json()


def upload_sample(client: httpx.Client) -> dict[str, Any]:
    """Upload the bundled sample; repeated calls return the same dataset."""
    folder = resources.files("service.datasets.sample")
    contents = {split: (folder / f"{split}.jsonl").read_bytes() for split in SPLITS}
    digest = hashlib.sha256(b"".join(contents.values())).hexdigest()
    dataset: dict[str, Any] = _checked(
        client.post(
            "/v1/datasets",
            data={"name": "sample"},
            files={split: (f"{split}.jsonl", data) for split, data in contents.items()},
            headers={"Idempotency-Key": f"demo-{digest}"},
        )
    )
    return dataset


def _follow(client: httpx.Client, run: dict[str, Any]) -> dict[str, Any]:
    """Show a progress bar until the run has ended; return the run."""
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=30),
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        bar = progress.add_task("queued", total=max(run["total_steps"], 1), figures="")
        phase = ""
        while run["status"] in ("queued", "running"):
            time.sleep(_POLL_SECONDS)
            run = _checked(client.get(f"/v1/runs/{run['id']}"))
            loss = run["metrics"].get("loss")
            speed, eta = run["samples_per_second"], run["eta_seconds"]
            figures = [
                f"loss {loss:.4f}" if loss is not None else "",
                f"{speed:.1f} samples/s" if speed else "",
                f"ETA {int(eta) // 60}:{int(eta) % 60:02d}" if eta else "",
            ]
            if not console.is_terminal and run["phase"] != phase:
                phase = run["phase"]
                console.print(f"  {phase} …")
            progress.update(
                bar,
                description=run["phase"] if run["status"] == "running" else run["status"],
                completed=run["step"],
                total=max(run["total_steps"], 1),
                figures="  ".join(part for part in figures if part),
            )
    return run


def _show(client: httpx.Client, artifacts_url: str, run: dict[str, Any], seconds: float) -> None:
    report = BiasReport.model_validate(_checked(client.get(f"/v1/runs/{run['id']}/bias-report")))
    console.print()
    print_report(report, console.file)
    files = _checked(client.get(f"/v1/runs/{run['id']}/artifacts"))["data"]
    console.print()
    console.print(f"Done in {seconds:.0f} s. {len(files)} files, including the adapter, are in")
    console.print(f"  {_adapter_location(artifacts_url, run['id'])}", soft_wrap=True)
    console.print("To use the API: make serve, then")
    console.print(f"  curl http://127.0.0.1:8000/v1/runs/{run['id']}/bias-report", soft_wrap=True)


def _adapter_location(artifacts_url: str, run_id: str) -> str:
    """Return the adapter's directory; of a bucket only the run's prefix, without a request."""
    url = urlsplit(artifacts_url)
    if url.scheme == "s3":
        return f"{artifacts_url.rstrip('/')}/runs/{run_id}"
    folder = Path(unquote(url.path)) / "runs" / run_id
    return str(next(folder.rglob("adapter_model.safetensors"), folder).parent)


def run(settings: Settings) -> int:
    """Return the exit status."""
    # TERM is handled like Ctrl-C: the run is cancelled and the service stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    console.print("Starting the API and one worker …")
    with service(settings) as client:
        dataset = upload_sample(client)
        rows = dataset["stats"]["splits"]
        console.print(
            f"Dataset {dataset['id']}: {rows['train']['rows']} rows for training, "
            f"{rows['validation']['rows']} for validation, {rows['test']['rows']} for testing"
        )
        started = _checked(client.post("/v1/runs", json=RUN | {"dataset_id": dataset["id"]}))
        console.print(f"Run {started['id']}: {RUN['preset']} on {RUN['base_model']}")
        try:
            ended = _follow(client, started)
        except KeyboardInterrupt:
            console.print("Cancelling the run …")
            client.post(f"/v1/runs/{started['id']}/cancel")
            return INTERRUPTED
        if ended["status"] != "succeeded":
            failure = ended["failure"] or {"reason": ended["status"], "detail": "", "advice": ""}
            console.print(f"The run {ended['status']}: {failure['reason']}. {failure['detail']}")
            console.print(failure["advice"])
            return 1
        _show(client, settings.artifacts_url, ended, time.monotonic() - began)
    return 0
