"""How Fairtune's step grows with its rows, with the prompt's length and with the adapter's rank."""

import argparse
from typing import Any

from benchmarks.throughput import figures, machine, table
from benchmarks.throughput.runner import Runner
from benchmarks.throughput.side_by_side import fairtune_work
from benchmarks.throughput.work import Work

ROWS = (8, 16, 32, 64)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the policy's words, for prompts of other lengths and the same kind."""
RANKS = (8, 32, 128)

_HEAD = ("what grows", "", "real tokens a step", "needed", "s a step", "samples/s", "peak GiB")


def measure(
    arguments: argparse.Namespace, runner: Runner, common: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """All settings in each round, by turns; returns the result and its table."""
    settings = _settings(common, arguments)
    seen: dict[tuple[str, float], list[dict[str, Any]]] = {one: [] for one in settings}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
        for (what, value), work in settings.items():
            seen[what, value].append(runner.run(work, f"{what}-{value:g}"))
    rows = []
    for (what, value), work in settings.items():
        steps = runner.run(work.but(system="probe"), f"tokens-{what}-{value:g}")["steps"]
        needed = [step["prefix"] + sum(step["rests"]) for step in steps]
        timed = [s for one in seen[what, value] for s in one["seconds"][arguments.warm_up :]]
        held = [one["device_peak"] or one["host_peak"] for one in seen[what, value]]
        rows.append(
            {
                "vary": what,
                "value": value,
                "rows": work.batch,
                "rank": work.rank,
                "real_tokens": round(sum(step["real"] for step in steps) / len(steps)),
                "needed_tokens": round(sum(needed) / len(needed)),
                **figures.Spread.of(timed).named("seconds_per_step"),
                "samples_per_second": work.batch / figures.Spread.of(timed).middle,
                "peak_memory": figures.Spread.of(held).middle,
            }
        )
    result = machine.stamp(arguments.model) | {
        "about": f"Fairtune alone, {common['dtype']}, {arguments.rounds} rounds, median "
        "(least to greatest)",
        "rows": rows,
    }
    return result, text(result)


def _settings(
    common: dict[str, Any], arguments: argparse.Namespace
) -> dict[tuple[str, float], Work]:
    made: dict[tuple[str, float], Work] = {}
    simple = Work("fairtune", template="hate_speech_simple", max_length=512, steps=1, **common)
    policy = simple.but(template="hate_speech_policy", max_length=1024)
    for rows in ROWS:
        made["rows per step", rows] = simple.but(batch=rows)
    for share in SHARES:
        made["share of the policy's prompt", share] = policy.but(system_share=share)
    for rank in RANKS:
        made["rank", rank] = simple.but(rank=rank)
    return {
        name: fairtune_work(work.but(steps=arguments.steps), arguments.fairtune)
        for name, work in made.items()
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
