"""Comparison of TRL's settings, from which `side_by_side.TRL` was chosen."""

import argparse
from typing import Any

from benchmarks.throughput import figures, machine, table
from benchmarks.throughput.runner import Runner
from benchmarks.throughput.side_by_side import PROMPTS, trl_work
from benchmarks.throughput.work import Work

# Changes to the settings in use; the first variant of each prompt changes nothing.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "hate_speech_simple": [
        {},
        {"sorted": False},
        {"micro": 8},
        {"micro": 16},
        {"attn_implementation": "eager"},
        {"padding_free": True},
        {"padding_free": True, "micro": 8},
        {"checkpointing": True},
    ],
    "hate_speech_policy": [
        {},
        {"micro": 1},
        {"micro": 4},
        {"attn_implementation": "eager"},
        {"padding_free": True},
        {"checkpointing": True},
    ],
}
_HEAD = ("prompt", "changed setting", "s/step", "samples/s", "peak GiB", "last loss")


def measure(
    arguments: argparse.Namespace, runner: Runner, common: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Run every variant in each round; return the result and its table."""
    works = {
        (prompt, number): trl_work(
            Work(
                "trl",
                template=prompt,
                max_length=PROMPTS[prompt],
                steps=arguments.steps,
                **common,
            ),
            arguments.trl | variant,
        )
        for prompt in arguments.prompts
        for number, variant in enumerate(VARIANTS[prompt])
    }
    results_by_work: dict[tuple[str, int], list[dict[str, Any]]] = {name: [] for name in works}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
        for name, work in works.items():
            results_by_work[name].append(runner.run(work, f"trl-{name[0]}-{name[1]}"))
    rows = []
    for (prompt, number), work in works.items():
        results = results_by_work[prompt, number]
        timed = figures.Spread.of([s for result in results for s in result["seconds"][1:]])
        peak_bytes = [result["device_peak"] or result["host_peak"] for result in results]
        rows.append(
            {
                "prompt": prompt,
                "changed": VARIANTS[prompt][number],
                "micro_batch": work.micro,
                "gradient_checkpointing": work.checkpointing,
                **timed.as_fields("seconds_per_step"),
                "samples_per_second": work.batch / timed.middle,
                "peak_memory": figures.Spread.of(peak_bytes).middle,
                "loss": results[0]["losses"][-1],
            }
        )
    result = machine.stamp(arguments.model) | {
        "about": f"TRL alone, {arguments.rounds} alternating rounds, median (minimum to maximum)",
        "rows": rows,
    }
    return result, text(result)


def text(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        changed = ", ".join(f"{name} {value}" for name, value in row["changed"].items())
        rows.append(
            [
                row["prompt"],
                changed or f"none (micro {row['micro_batch']}, sorted, padded, sdpa)",
                table.spread(row, "seconds_per_step", 2),
                f"{row['samples_per_second']:.2f}",
                f"{row['peak_memory'] / table.GIB:.2f}",
                f"{row['loss']:.3f}",
            ]
        )
    return f"{table.heading(result)}\n\n{table.markdown(_HEAD, rows)}\n"
