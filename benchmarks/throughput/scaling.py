"""Scaling of Fairtune's step with rows per step, prompt length and LoRA rank."""

import argparse
from typing import Any

from benchmarks.throughput import figures, machine, table
from benchmarks.throughput.runner import Runner
from benchmarks.throughput.side_by_side import fairtune_work
from benchmarks.throughput.work import Work

ROWS = (8, 16, 32, 64)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the policy's words in the prompt, for prompts of different lengths."""
RANKS = (8, 32, 128)

_HEAD = ("parameter", "", "real tokens/step", "needed", "s/step", "samples/s", "peak GiB")


def measure(
    arguments: argparse.Namespace, runner: Runner, common: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Run all settings in each round, in alternation; return the result and its table."""
    settings = _settings(common, arguments)
    results: dict[tuple[str, float], list[dict[str, Any]]] = {setting: [] for setting in settings}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
        for (parameter, value), work in settings.items():
            results[parameter, value].append(runner.run(work, f"{parameter}-{value:g}"))
    rows = []
    for (parameter, value), work in settings.items():
        steps = runner.run(work.but(system="probe"), f"tokens-{parameter}-{value:g}")["steps"]
        needed = [step["prefix"] + sum(step["suffixes"]) for step in steps]
        runs = results[parameter, value]
        timed = [seconds for run in runs for seconds in run["seconds"][arguments.warm_up :]]
        peak_bytes = [run["device_peak"] or run["host_peak"] for run in runs]
        rows.append(
            {
                "vary": parameter,
                "value": value,
                "rows": work.batch,
                "rank": work.rank,
                "real_tokens": round(sum(step["real"] for step in steps) / len(steps)),
                "needed_tokens": round(sum(needed) / len(needed)),
                **figures.Spread.of(timed).as_fields("seconds_per_step"),
                "samples_per_second": work.batch / figures.Spread.of(timed).middle,
                "peak_memory": figures.Spread.of(peak_bytes).middle,
            }
        )
    result = machine.stamp(arguments.model) | {
        "about": f"Fairtune alone, {common['dtype']}, {arguments.rounds} rounds, median "
        "(minimum to maximum)",
        "rows": rows,
    }
    return result, text(result)


def _settings(
    common: dict[str, Any], arguments: argparse.Namespace
) -> dict[tuple[str, float], Work]:
    works: dict[tuple[str, float], Work] = {}
    simple = Work("fairtune", template="hate_speech_simple", max_length=512, steps=1, **common)
    policy = simple.but(template="hate_speech_policy", max_length=1024)
    for rows in ROWS:
        works["rows per step", rows] = simple.but(batch=rows)
    for share in SHARES:
        works["share of the policy's prompt", share] = policy.but(system_share=share)
    for rank in RANKS:
        works["rank", rank] = simple.but(rank=rank)
    return {
        name: fairtune_work(work.but(steps=arguments.steps), arguments.fairtune)
        for name, work in works.items()
    }


def text(result: dict[str, Any]) -> str:
    rows = [
        [
            row["vary"],
            f"{row['value']:g}",
            f"{row['real_tokens']:,}",
            f"{row['needed_tokens']:,}",
            table.spread(row, "seconds_per_step", 2),
            f"{row['samples_per_second']:.2f}",
            f"{row['peak_memory'] / table.GIB:.2f}",
        ]
        for row in result["rows"]
    ]
    return f"{table.heading(result)}\n\n{table.markdown(_HEAD, rows)}\n"
