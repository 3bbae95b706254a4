"""Command line: python -m benchmarks.evaluation FILE.

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
"""max_seq_length by template."""

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def main() -> None:
    arguments = _parser().parse_args()
    if unknown := {*arguments.templates} - {*PROMPTS}:
        raise SystemExit(f"Unknown template: {', '.join(sorted(unknown))}.")
    models_dir = (arguments.models_dir or BUILD / "models").resolve()
    models_dir.mkdir(parents=True, exist_ok=True)
    provide(BUNDLED_MODEL, models_dir)
    output_dir = BUILD / time.strftime("evaluation-%Y%m%d-%H%M%S")
    output_dir.mkdir(parents=True)
    rows = output_dir / "rows.jsonl"
    rows.write_bytes(labelled_lines(arguments.file, arguments.rows, seed=0))
    results = {}
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
            results[template, system] = _run(work, output_dir)
    lines = [
        row
        for template in arguments.templates
        for row in table.rows(
            template, results[template, "fairtune"], results[template, "generate"]
        )
    ]
    first = next(iter(results.values()))
    result = machine.stamp(BUNDLED_MODEL) | {
        "about": (
            f"{'NF4 with double quantization, ' if first['in_4bit'] else ''}{first['weights']}, "
            f"{first['threads']} threads, rows of {arguments.file.name}; one process each"
        ),
        "spec": arguments.spec,
        "rows": lines,
    }
    _write(result)


def _run(work: Work, output_dir: Path) -> dict[str, Any]:
    """Run one process and return its result. Exits with its last output lines if it fails."""
    stem = output_dir / f"{work.template}-{work.system}"
    work.write(stem.with_suffix(".work.json"))
    log, result = stem.with_suffix(".log"), stem.with_suffix(".json")
    started = time.monotonic()
    with log.open("wb") as output:
        command = [sys.executable, "-m", "benchmarks.evaluation.child"]
        process = subprocess.run(  # noqa: S603 - our own module, no shell
            [*command, str(stem.with_suffix(".work.json")), str(result)],
            cwd=machine.ROOT,
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{stem.name} failed ({process.returncode}); {log} ends:\n{tail}")
    measurement: dict[str, Any] = json.loads(result.read_text())
    speed = measurement["rows"] / measurement["seconds"]
    print(
        f"  {stem.name}: {speed:.2f} rows/s; whole {time.monotonic() - started:.0f} s", flush=True
    )
    return measurement


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
    parser.add_argument("--rows", type=int, help="number of random rows to score; default: all")
    parser.add_argument(
        "--generate-rows", type=int, default=128, help="rows to generate for, at equal distances"
    )
    parser.add_argument("--templates", type=_names, default=list(PROMPTS), help="comma-separated")
    parser.add_argument(
        "--models-dir", type=Path, help="directory of base models; else build/bench"
    )
    parser.add_argument(
        "--spec", type=json.loads, default={}, help="JSON merged into a run's defaults"
    )
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
