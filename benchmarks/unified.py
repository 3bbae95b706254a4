"""Fine-tune on the unified HateXplain and ToxiGen rows through a running service.

    fairtune up &
    python -m benchmarks.unified DIRECTORY --train-rows 1200 --validation-rows 200

DIRECTORY holds unified_train.json, unified_val.json and unified_test.json: JSON arrays of objects
with text, label_binary, target_group_norm, source_dataset, label_multiclass and original_id. They
are not part of this project. The rows are converted to labelled JSON lines, one split per file, and
uploaded through the API. With --save, the report is written to a directory in all formats; its page
omits the texts of the worst errors, which belong to the data.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from service.fairness.html import render_report
from service.fairness.schema import BiasReport
from service.fairness.text import print_report

FILES = {
    "train": "unified_train.json",
    "validation": "unified_val.json",
    "test": "unified_test.json",
}


def labelled_lines(path: Path, rows: int | None, seed: int) -> bytes:
    """Return the file's rows as labelled JSON lines, all of them or `rows` random ones.

    Rows with an empty text cannot be classified and are omitted.
    """
    rows_of_file = [row for row in json.loads(path.read_text("utf-8")) if row["text"].strip()]
    if rows is not None and rows < len(rows_of_file):
        rows_of_file = random.Random(seed).sample(rows_of_file, rows)
    lines = [
        {
            "text": row["text"],
            "label": row["label_binary"],
            "group": row["target_group_norm"],
            "source": row["source_dataset"],
            "detail": row["label_multiclass"],
        }
        for row in rows_of_file
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def json_or_exit(response: httpx.Response) -> Any:
    if response.is_error:
        sys.exit(f"{response.request.method} {response.url}: {response.text}")
    return response.json()


def save(client: httpx.Client, run_id: str, report: BiasReport, directory: Path) -> None:
    """Write the run's report to `directory`: JSON and tables as stored, its page without texts."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("bias_report.json", "bias_metrics.csv", "performance_metrics.csv"):
        response = client.get(f"/v1/runs/{run_id}/artifacts/{name}")
        if response.is_error:
            sys.exit(f"{response.request.method} {response.url}: {response.text}")
        (directory / name).write_bytes(response.content)
    (directory / "bias_report.html").write_text(render_report(report), "utf-8", newline="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--train-rows", type=int, help="number of random rows; default: all")
    parser.add_argument("--validation-rows", type=int, help="number of random rows; default: all")
    parser.add_argument("--test-rows", type=int, help="number of random rows; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random rows")
    parser.add_argument("--save", type=Path, help="directory for the report's files")
    parser.add_argument("--spec", default="{}", help="JSON merged into the run's specification")
    arguments = parser.parse_args()
    client = httpx.Client(base_url=arguments.url, timeout=120, trust_env=False)
    files = {
        split: labelled_lines(
            arguments.directory / name, getattr(arguments, f"{split}_rows"), arguments.seed
        )
        for split, name in FILES.items()
    }
    dataset = json_or_exit(client.post("/v1/datasets", data={"name": "unified"}, files=files))
    print({split: part["rows"] for split, part in dataset["stats"]["splits"].items()})
    for warning in dataset["warnings"]:
        print(f"warning: {warning['detail']}")
    body = {
        "name": "unified",
        "preset": "quick_test",
        "base_model": "smollm2-135m-instruct",
        "dataset_id": dataset["id"],
    } | json.loads(arguments.spec)
    run = json_or_exit(client.post("/v1/runs", json=body))
    started = time.monotonic()
    while run["status"] in ("queued", "running"):
        time.sleep(5)
        run = json_or_exit(client.get(f"/v1/runs/{run['id']}"))
        if run["step"]:
            print(f"{run['phase']} {run['step']}/{run['total_steps']} {run['metrics']}", end="\r")
    print()
    if run["status"] != "succeeded":
        sys.exit(f"{run['status']}: {run['failure']}")
    report = BiasReport.model_validate(
        json_or_exit(client.get(f"/v1/runs/{run['id']}/bias-report"))
    )
    print_report(report)
    if arguments.save is not None:
        save(client, run["id"], report, arguments.save)
    print(f"{run['id']}: {time.monotonic() - started:.0f} s, {run['metrics']}")


if __name__ == "__main__":
    main()
