"""Overhead of the whole service compared with the training program alone, for one job.

The program is `python -m worker.programs.train JOB_DIR` with nothing else on the machine; the
service is `fairtune up` (API, worker, supervisor, SQLite, broker) with the same job. Both
alternate, and each pair is in the opposite order of the pair before.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.throughput import machine, table
from benchmarks.throughput.figures import Spread
from service.cli import demo
from service.cli.settings import read_settings
from service.datasets.build import build
from service.datasets.templates import builtin_templates
from service.domain.base_models import BUNDLED_MODEL
from service.domain.job import DATASET_FILE, JOB_FILE, Job
from service.domain.spec import RunSpec, overlay
from service.presets import FALLBACK, presets

_CALIBRATION_STEPS = 8
_POLL_SECONDS = 0.5
_HEAD = ("", "whole run, s", "training, s", "steps/s while training")


def measure(
    arguments: argparse.Namespace, directory: Path, models_dir: Path
) -> tuple[dict[str, Any], str]:
    """Run one pair per round, after a short run that determines the number of steps.

    The time of the service is from the POST to `succeeded`; its start-up is reported separately.
    """
    dataset = _dataset(directory)
    calibration = _run_program(
        _spec(arguments, _CALIBRATION_STEPS), dataset, directory / "trial", models_dir
    )
    per_step = calibration["training_seconds"] / _CALIBRATION_STEPS
    steps = max(_CALIBRATION_STEPS, math.ceil(arguments.minutes * 60 / per_step))
    spec = _spec(arguments, steps)
    print(f"{per_step:.2f} s a step: {steps} steps", flush=True)
    results: dict[str, list[dict[str, float]]] = {"bare": [], "service": []}
    for number in range(arguments.rounds):
        for kind in ("bare", "service") if number % 2 == 0 else ("service", "bare"):
            folder = directory / f"{kind}-{number}"
            run = _run_program if kind == "bare" else _run_service
            timings = run(spec, dataset, folder, models_dir)
            results[kind].append(timings)
            print(f"  {kind}: {timings}", flush=True)
    rows = [_row(kind, kind_results, steps) for kind, kind_results in results.items()]
    result = machine.stamp(BUNDLED_MODEL) | {
        "about": f"{steps} steps, {arguments.rounds} rounds by turns, median (least to greatest)",
        "steps": steps,
        "rows": rows,
        "overhead": _overhead(results, "whole_seconds"),
        "overhead_training": _overhead(results, "training_seconds"),
    }
    return result, text(result)


def _overhead(results: dict[str, list[dict[str, float]]], name: str) -> dict[str, float]:
    """Return the additional time as a share of the program's, pair by pair."""
    pairs = zip(results["service"], results["bare"], strict=True)
    return Spread.of([service[name] / bare[name] - 1 for service, bare in pairs]).as_fields("share")


def _row(kind: str, results: list[dict[str, float]], steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"system": kind}
    for name in ("whole_seconds", "training_seconds"):
        row |= Spread.of([timings[name] for timings in results]).as_fields(name)
    speeds = [steps / timings["training_seconds"] for timings in results]
    row |= Spread.of(speeds).as_fields("steps_per_second")
    if kind == "service":
        row |= Spread.of([timings["ready_seconds"] for timings in results]).as_fields(
            "ready_seconds"
        )
    return row


def text(result: dict[str, Any]) -> str:
    names = ("whole_seconds", "training_seconds", "steps_per_second")
    rows = [
        [row["system"], *(table.spread(row, name, 3 if "per" in name else 1) for name in names)]
        for row in result["rows"]
    ]
    whole, training = result["overhead"], result["overhead_training"]
    ready = result["rows"][1]["ready_seconds"]
    summary = (
        f"Overhead of the service: {whole['share']:+.2%} of the whole run "
        f"({whole['share_low']:+.2%} to {whole['share_high']:+.2%}), {training['share']:+.2%} "
        f"while training. `fairtune up` was ready after {ready:.1f} s, which is not included."
    )
    return f"{table.heading(result)}\n\n{table.markdown(_HEAD, rows)}\n\n{summary}\n"


def _body(arguments: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Return the request: published defaults except for model, steps and early stopping."""
    training = {
        "max_steps": steps,
        "early_stopping_patience": 0,
        "warmup_steps": 0,
        "gradient_checkpointing": False,
    }
    base = {"base_model": BUNDLED_MODEL, "seed": arguments.seed, "training": training}
    return overlay(base, arguments.fairtune)


def _spec(arguments: argparse.Namespace, steps: int) -> RunSpec:
    values = overlay(presets()[FALLBACK].values, _body(arguments, steps))
    return RunSpec.model_validate(values | {"dataset_id": "benchmark"})


def _dataset(directory: Path) -> Path:
    directory.mkdir(parents=True)
    folder = Path(demo.__file__).parent / "datasets" / "sample"
    files = {split: (folder / f"{split}.jsonl").open("rb") for split in demo.SPLITS}
    try:
        return build(files, directory).path
    finally:
        for file in files.values():
            file.close()


def _run_program(spec: RunSpec, dataset: Path, folder: Path, models_dir: Path) -> dict[str, float]:
    """Run the bare program on a job directory. Exits if it fails."""
    folder.mkdir()
    (folder / DATASET_FILE).symlink_to(dataset.resolve())
    job = Job(
        job_id="job_benchmark",
        run_id="run_benchmark",
        token=1,
        spec=spec,
        template=builtin_templates()[spec.template],
        baseline_template=None,
        models_dir=str(models_dir),
    )
    (folder / JOB_FILE).write_text(job.model_dump_json())
    started = time.monotonic()
    process = subprocess.run(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "worker.programs.train", str(folder)],
        cwd=machine.ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    whole = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"the program failed; see {folder}/training.log")
    results = json.loads((folder / "train_results.json").read_text())
    return {"whole_seconds": whole, "training_seconds": results["train_runtime"]}


def _run_service(spec: RunSpec, _dataset: Path, folder: Path, models_dir: Path) -> dict[str, float]:
    """Run the job through the API of a new service with an empty data directory."""
    started = time.monotonic()
    settings = read_settings(data_dir=folder, models_dir=models_dir)
    with demo.service(settings) as client:
        ready = time.monotonic() - started
        dataset = demo.upload_sample(client)
        body = spec.model_dump(mode="json", exclude={"dataset_id", "preset", "name", "tags"})
        started = time.monotonic()
        run = _json(client.post("/v1/runs", json=body | {"dataset_id": dataset["id"]}))
        while run["status"] in ("queued", "running"):
            time.sleep(_POLL_SECONDS)
            run = _json(client.get(f"/v1/runs/{run['id']}"))
        whole = time.monotonic() - started
        if run["status"] != "succeeded":
            raise SystemExit(f"the run {run['status']}: {run['failure']}")
        results = _json(client.get(f"/v1/runs/{run['id']}/artifacts/train_results.json"))
    return {
        "whole_seconds": whole,
        "training_seconds": results["train_runtime"],
        "ready_seconds": ready,
    }


def _json(response: httpx.Response) -> Any:
    if response.is_error:
        raise SystemExit(f"{response.request.method} {response.url}: {response.text}")
    return response.json()
