"""What the whole service costs over the bare program, for one job.

The bare run is `python -m worker.programs.train JOB_DIR` and nothing else on the machine; the other
is the same job posted to `fairtune up` (API, worker, supervisor, SQLite, broker). By turns, each
pair in the other order than the one before.
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

_TRIAL_STEPS = 8
_POLL_SECONDS = 0.5
_HEAD = ("", "whole run, s", "training, s", "steps/s while training")


def measure(
    arguments: argparse.Namespace, place: Path, models_dir: Path
) -> tuple[dict[str, Any], str]:
    """As many pairs as there are rounds, after a short bare run that says how many steps it takes.

    Of the service the time counts from the POST to `succeeded`; its own start is reported apart.
    """
    dataset = _dataset(place)
    trial = _bare(_spec(arguments, _TRIAL_STEPS), dataset, place / "trial", models_dir)
    per_step = trial["training_seconds"] / _TRIAL_STEPS
    steps = max(_TRIAL_STEPS, math.ceil(arguments.minutes * 60 / per_step))
    spec = _spec(arguments, steps)
    print(f"{per_step:.2f} s a step: {steps} steps", flush=True)
    seen: dict[str, list[dict[str, float]]] = {"bare": [], "service": []}
    for number in range(arguments.rounds):
        for kind in ("bare", "service") if number % 2 == 0 else ("service", "bare"):
            folder = place / f"{kind}-{number}"
            run = _bare if kind == "bare" else _served
            found = run(spec, dataset, folder, models_dir)
            seen[kind].append(found)
            print(f"  {kind}: {found}", flush=True)
    rows = [_row(kind, results, steps) for kind, results in seen.items()]
    result = machine.stamp(BUNDLED_MODEL) | {
        "about": f"{steps} steps, {arguments.rounds} rounds by turns, median (least to greatest)",
        "steps": steps,
        "rows": rows,
        "overhead": _overhead(seen, "whole_seconds"),
        "overhead_training": _overhead(seen, "training_seconds"),
    }
    return result, text(result)


def _overhead(seen: dict[str, list[dict[str, float]]], name: str) -> dict[str, float]:
    """Extra time as a share of the bare program's, pair by pair."""
    pairs = zip(seen["service"], seen["bare"], strict=True)
    return Spread.of([one[name] / other[name] - 1 for one, other in pairs]).named("share")


def _row(kind: str, results: list[dict[str, float]], steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"system": kind}
    for name in ("whole_seconds", "training_seconds"):
        row |= Spread.of([one[name] for one in results]).named(name)
    speeds = [steps / one["training_seconds"] for one in results]
    row |= Spread.of(speeds).named("steps_per_second")
    if kind == "service":
        row |= Spread.of([one["ready_seconds"] for one in results]).named("ready_seconds")
    return row


def text(result: dict[str, Any]) -> str:
    names = ("whole_seconds", "training_seconds", "steps_per_second")
    rows = [
        [row["system"], *(table.spread(row, name, 3 if "per" in name else 1) for name in names)]
        for row in result["rows"]
    ]
    whole, training = result["overhead"], result["overhead_training"]
    ready = result["rows"][1]["ready_seconds"]
    said = (
        f"Overhead of the service: {whole['share']:+.2%} of the whole run "
        f"({whole['share_low']:+.2%} to {whole['share_high']:+.2%}), {training['share']:+.2%} "
        f"while training. `fairtune up` was ready after {ready:.1f} s, which is not in these."
    )
    return f"{table.heading(result)}\n\n{table.markdown(_HEAD, rows)}\n\n{said}\n"


def _body(arguments: argparse.Namespace, steps: int) -> dict[str, Any]:
    """What is posted: the published defaults but for the model, the steps and early stopping."""
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


def _dataset(place: Path) -> Path:
    place.mkdir(parents=True)
    folder = Path(demo.__file__).parent / "datasets" / "sample"
    files = {split: (folder / f"{split}.jsonl").open("rb") for split in demo.SPLITS}
    try:
        return build(files, place).path
    finally:
        for file in files.values():
            file.close()


def _bare(spec: RunSpec, dataset: Path, folder: Path, models_dir: Path) -> dict[str, float]:
    """The program by hand, as docs/troubleshooting.md shows it. Exits where it fails."""
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
    began = time.monotonic()
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "worker.programs.train", str(folder)],
        cwd=machine.ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    whole = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"the program failed; see {folder}/training.log")
    results = json.loads((folder / "train_results.json").read_text())
    return {"whole_seconds": whole, "training_seconds": results["train_runtime"]}


def _served(spec: RunSpec, _dataset: Path, folder: Path, models_dir: Path) -> dict[str, float]:
    """The same through the API of a service of its own, on an empty data directory."""
    began = time.monotonic()
    settings = read_settings(data_dir=folder, models_dir=models_dir)
    with demo.service(settings) as client:
        ready = time.monotonic() - began
        dataset = demo.upload_sample(client)
        body = spec.model_dump(mode="json", exclude={"dataset_id", "preset", "name", "tags"})
        began = time.monotonic()
        run = _answer(client.post("/v1/runs", json=body | {"dataset_id": dataset["id"]}))
        while run["status"] in ("queued", "running"):
            time.sleep(_POLL_SECONDS)
            run = _answer(client.get(f"/v1/runs/{run['id']}"))
        whole = time.monotonic() - began
        if run["status"] != "succeeded":
            raise SystemExit(f"the run {run['status']}: {run['failure']}")
        results = _answer(client.get(f"/v1/runs/{run['id']}/artifacts/train_results.json"))
    return {
        "whole_seconds": whole,
        "training_seconds": results["train_runtime"],
        "ready_seconds": ready,
    }


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise SystemExit(f"{response.request.method} {response.url}: {response.text}")
    return response.json()
