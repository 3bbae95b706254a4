"""Command line: python -m benchmarks.throughput [--quick] [--scaling] [--overhead].

Needs the extra `bench` (`make bench` installs it). Every measurement is written to
benchmarks/results/ as JSON and as a Markdown table; benchmarks/results/README.md lists them.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.throughput import machine, overhead, scaling, side_by_side, trl_settings
from benchmarks.throughput.models import provide
from benchmarks.throughput.rows import prepare
from benchmarks.throughput.runner import Runner
from service.domain.base_models import BUNDLED_MODEL

BUILD = machine.ROOT / "build" / "bench"
RESULTS = machine.ROOT / "benchmarks" / "results"


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.quick:
        arguments.steps, arguments.original_steps, arguments.rounds = 2, 2, 1
    if not 0 < arguments.warm_up < min(arguments.steps, arguments.original_steps):
        raise SystemExit("--warm-up must be at least 1 and less than the steps.")
    BUILD.mkdir(parents=True, exist_ok=True)
    models_dir = (arguments.models_dir or BUILD / "models").resolve()
    provide(arguments.model, models_dir)
    rows, completions = prepare(arguments.rows, BUILD / "rows")
    output_dir = BUILD / time.strftime("%Y%m%d-%H%M%S")
    runner = Runner(output_dir)
    common: dict[str, Any] = {
        "model": arguments.model,
        "models_dir": str(models_dir),
        "rows": str(rows),
        "completions": completions,
        "seed": arguments.seed,
        "dropout": arguments.dropout,
        "dtype": arguments.dtype,
    }
    if arguments.scaling:
        kind, result, text = "scaling", *scaling.measure(arguments, runner, common)
    elif arguments.trl_settings:
        kind, result, text = "trl", *trl_settings.measure(arguments, runner, common)
    elif arguments.overhead:
        kind, result, text = "overhead", *overhead.measure(arguments, output_dir, models_dir)
    else:
        kind, result, text = "throughput", *side_by_side.measure(arguments, runner, common)
    _write(kind, result, text)
    if not arguments.keep:
        shutil.rmtree(output_dir, ignore_errors=True)


def _write(kind: str, result: dict[str, Any], text: str) -> None:
    print(f"\n{text}")
    name = machine.short_name(result["machine"])
    stem = RESULTS / f"{result['date']}-{kind}-{name}"
    RESULTS.mkdir(exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(f"written: {stem.relative_to(machine.ROOT)}.json and .md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--scaling", action="store_true", help="vary Fairtune's rows, prompt and rank"
    )
    mode.add_argument("--overhead", action="store_true", help="compare service and program")
    mode.add_argument("--trl-settings", action="store_true", help="compare settings of TRL")
    parser.add_argument("--quick", action="store_true", help="smoke test: one round of two steps")
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps, including warm-up")
    parser.add_argument(
        "--original-steps", type=int, default=3, help="optimizer steps of `original`"
    )
    parser.add_argument("--warm-up", type=int, default=1, help="number of untimed steps")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of every system")
    parser.add_argument(
        "--systems", type=_names, default=list(side_by_side.SYSTEMS), help="comma-separated"
    )
    parser.add_argument(
        "--prompts", type=_names, default=list(side_by_side.PROMPTS), help="comma-separated"
    )
    parser.add_argument(
        "--model", default=BUNDLED_MODEL, help="base model; also random-llama-1b or -3b"
    )
    parser.add_argument(
        "--models-dir", type=Path, help="directory of base models; else build/bench"
    )
    parser.add_argument("--rows", type=Path, help="dataset file; default: the bundled sample")
    parser.add_argument("--seed", type=int, default=42, help="seed of the row order")
    parser.add_argument("--dropout", type=float, default=0.0, help="lora_dropout of all systems")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default=machine.dtype(),
        help="dtype of all systems; default: float32 on a CPU without bfloat16 instructions",
    )
    parser.add_argument(
        "--fairtune", type=json.loads, default={}, help="JSON merged into the run spec"
    )
    parser.add_argument(
        "--trl", type=json.loads, default={}, help="JSON merged into TRL's settings"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="training time for --overhead")
    parser.add_argument("--keep", action="store_true", help="keep the output of all processes")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
