"""The command line: python -m benchmarks.evaluation FILE.

FILE is a JSON array of objects as benchmarks.unified reads them. Every measurement is
written to benchmarks/results/ as JSON and as a Markdown table; benchmarks/results/README.md lists
them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.evaluation import table
from benchmarks.evaluation.work import Work
from benchmarks.throughput import machine
from benchmarks.throughput.models import provide
from benchmarks.unified import labelled_lines
from service.domain.base_models import BUNDLED_MODEL

BUILD = machine.ROOT / "build" / "bench"
RESULTS = machine.ROOT / "benchmarks" / "results"

PROMPTS = {"hate_speech_simple": 512, "hate_speech_policy": 1024}
"""Template -> max_seq_length."""

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def main() -> None:
    arguments = _parser().parse_args()
    if unknown := {*arguments.templates} - {*PROMPTS}:
        raise SystemExit(f"Not known: {', '.join(sorted(unknown))}.")
    models_dir = (arguments.models_dir or BUILD / "models").resolve()
    models_dir.mkdir(parents=True, exist_ok=True)
    provide(BUNDLED_MODEL, models_dir)
    place = BUILD / time.strftime("evaluation-%Y%m%d-%H%M%S")
    place.mkdir(parents=True)
    rows = place / "rows.jsonl"
    rows.write_bytes(labelled_lines(arguments.file, arguments.rows, seed=0))
    measured = {}
    for template in arguments.templates:
        for system in ("fairtune", "generate"):
            work = Work(
                system,  # type: ignore[arg-type]  # one of the two
                model=BUNDLED_MODEL,
                models_dir=str(models_dir),
                rows=str(rows),
                template=template,
                max_length=PROMPTS[template],
                sample=arguments.generate_rows,
                spec=arguments.spec,
            )
            measured[template, system] = _run(work, place)
    made = [
        row
        for template in arguments.templates
        for row in table.rows(
            template, measured[template, "fairtune"], measured[template, "generate"]
        )
    ]
    first = next(iter(measured.values()))
    result = machine.stamp(BUNDLED_MODEL) | {
        "about": (
            f"{'NF4 with double quantization, ' if first['in_4bit'] else ''}{first['weights']}, "
            f"{first['threads']} threads, rows of {arguments.file.name}; one process each, in turns"
        ),
        "spec": arguments.spec,
        "rows": made,
    }
    _write(result)


def _run(work: Work, place: Path) -> dict[str, Any]:
    """One process to its end. Exits with its last lines where it fails."""
    stem = place / f"{work.template}-{work.system}"
    work.write(stem.with_suffix(".work.json"))
    log, result = stem.with_suffix(".log"), stem.with_suffix(".json")
    began = time.monotonic()
    with log.open("wb") as output:
        command = [sys.executable, "-m", "benchmarks.evaluation.child"]
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            [*command, str(stem.with_suffix(".work.json")), str(result)],
            cwd=machine.ROOT,
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{stem.name} failed ({done.returncode}); {log} ends:\n{tail}")
    found: dict[str, Any] = json.loads(result.read_text())
    speed = found["rows"] / found["seconds"]
    print(f"  {stem.name}: {speed:.2f} rows/s; whole {time.monotonic() - began:.0f} s", flush=True)
    return found


def _write(result: dict[str, Any]) -> None:
    text = table.text(result)
    print(f"\n{text}")
    name = machine.short_name(result["machine"])
    stem = RESULTS / f"{result['date']}-evaluation-{name}"
    RESULTS.mkdir(exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(f"written: {stem.relative_to(machine.ROOT)}.json and .md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation")
    parser.add_argument("file", type=Path, help="JSON array of rows, such as unified_test.json")
    parser.add_argument("--rows", type=int, help="score so many, drawn at random; default: all")
    parser.add_argument(
        "--generate-rows", type=int, default=128, help="generate for so many, at equal distances"
    )
    parser.add_argument("--templates", type=_names, default=list(PROMPTS))
    parser.add_argument("--models-dir", type=Path, help="where base models lie; else build/bench")
    parser.add_argument(
        "--spec", type=json.loads, default={}, help="JSON laid over a run's defaults"
    )
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
