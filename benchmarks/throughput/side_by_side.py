"""Original way, TRL and Fairtune by turns: the main table."""

import argparse
from collections import defaultdict
from statistics import median
from typing import Any

from benchmarks.throughput import figures, machine, table
from benchmarks.throughput.runner import Runner
from benchmarks.throughput.work import BATCH, Work, spec_of
from service.domain.spec import RunSpec, overlay

SYSTEMS = ("original", "trl", "fairtune")
PROMPTS = {"hate_speech_simple": 512, "hate_speech_policy": 1024}
"""Template -> the length that rows may have, which is what the original way pads to."""

WHY = {
    "original": "gradient checkpointing on, as its default configuration has it",
    "trl": "gradient checkpointing off: memory suffices, and recomputing costs time",
    "fairtune": "gradient checkpointing off: memory suffices, and recomputing costs time",
}

# What measured best here, of equals the one with less memory; benchmarks/results has the others.
TRL: dict[str, dict[str, Any]] = {
    "hate_speech_simple": {"micro": 4, "checkpointing": False, "sorted": True},
    "hate_speech_policy": {"micro": 2, "checkpointing": False, "sorted": True},
}


def measure(
    arguments: argparse.Namespace, runner: Runner, common: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Run all rounds; returns the result for JSON and its table."""
    if unknown := {*arguments.systems} - {*SYSTEMS} | {*arguments.prompts} - {*PROMPTS}:
        raise SystemExit(f"Not known: {', '.join(sorted(unknown))}.")
    rows: list[dict[str, Any]] = []
    probes: dict[str, Any] = {}
    agreement: dict[str, Any] = {}
    for prompt in arguments.prompts:
        works = {name: _work(name, prompt, arguments, common) for name in arguments.systems}
        probe = Work(
            "probe", template=prompt, max_length=PROMPTS[prompt], steps=arguments.steps, **common
        )
        seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number in range(arguments.rounds):
            print(f"{prompt}, round {number + 1} of {arguments.rounds}", flush=True)
            seen["probe"].append(runner.run(probe, f"{prompt}-probe"))
            for name, work in works.items():
                told = work.but(adapter_seed=arguments.seed + number)
                seen[name].append(runner.run(told, f"{prompt}-{name}"))
        probed = seen.pop("probe")
        probes[prompt] = _probe_figures(probed)
        for name, work in works.items():
            told_of = {
                "batch": work.batch,
                "micro": work.micro,
                "max_length": work.max_length,
                "checkpointing": work.checkpointing,
                "rank": work.rank,
                "options": work.options,
            }
            made = figures.row((name, prompt), told_of, seen, probed, arguments.warm_up)
            rows.append(made | {"checkpointing_why": _why(work)})
        if {"trl", "fairtune"} <= seen.keys():
            curves = [[one["losses"] for one in seen[name]] for name in ("trl", "fairtune")]
            agreement[prompt] = figures.agreement(*curves)
    result = machine.stamp(arguments.model) | {
        "about": (
            f"NF4 with double quantization, {common['dtype']}, LoRA r = 32 on q_proj and v_proj, "
            f"lora_dropout {arguments.dropout:g}, effective batch {BATCH}, "
            f"{arguments.rounds} rounds by turns, {arguments.warm_up} warm-up step each, rows of "
            f"{'the bundled sample' if arguments.rows is None else arguments.rows.name}; median "
            "(least to greatest)"
        ),
        "dtype": common["dtype"],
        "rounds": arguments.rounds,
        "probes": probes,
        "agreement": agreement,
        "rows": rows,
    }
    return result, table.throughput(result)


def _work(name: str, prompt: str, arguments: argparse.Namespace, common: dict[str, Any]) -> Work:
    """`micro` and `checkpointing` as the system itself will have them."""
    work = Work(
        name,  # type: ignore[arg-type]  # checked above
        template=prompt,
        max_length=PROMPTS[prompt],
        steps=arguments.original_steps if name == "original" else arguments.steps,
        **common,
    )
    if name == "original":
        return work.but(checkpointing=True)
    if name == "trl":
        return trl_work(work, arguments.trl)
    return fairtune_work(work, arguments.fairtune)


def trl_work(work: Work, changes: dict[str, Any]) -> Work:
    """The settings of its prompt with `changes` over them; see `systems.trl` for their names."""
    options = TRL[work.template] | changes
    return work.but(
        micro=options.pop("micro"), checkpointing=options.pop("checkpointing"), options=options
    )


def fairtune_work(work: Work, options: dict[str, Any]) -> Work:
    """Checkpointing is off unless the options ask for it; all else as a run's defaults are."""
    training = RunSpec.model_validate(overlay(spec_of(work), options)).training
    return work.but(
        options=options,
        micro=training.per_device_train_batch_size,
        checkpointing=training.gradient_checkpointing,
    )


def _why(work: Work) -> str:
    usual = work.checkpointing == (work.system == "original")
    return WHY[work.system] if usual else "as asked for on the command line"


def _probe_figures(probed: list[dict[str, Any]]) -> dict[str, Any]:
    steps = probed[0]["steps"]
    return {
        "peak": median([one["peak"] for one in probed]),
        "peaks": [one["peak"] for one in probed],
        "peak_cached": median([one["peak_cached"] for one in probed]),
        "needed": round(median([step["prefix"] + sum(step["rests"]) for step in steps])),
        "real": round(median([step["real"] for step in steps])),
        "prefix": round(median([step["prefix"] for step in steps])),
        "targets": round(median([step["targets"] for step in steps])),
    }
