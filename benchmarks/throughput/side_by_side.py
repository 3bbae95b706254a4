"""The main table: original scripts, TRL and Fairtune in alternation."""

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
"""Maximum row length by template; the original scripts pad to it."""

WHY = {
    "original": "gradient checkpointing on, as its default configuration has it",
    "trl": "gradient checkpointing off: memory suffices, and recomputing costs time",
    "fairtune": "gradient checkpointing off: memory suffices, and recomputing costs time",
}

# The fastest settings measured, and of equally fast ones those with less memory;
# benchmarks/results has the others.
TRL: dict[str, dict[str, Any]] = {
    "hate_speech_simple": {"micro": 4, "checkpointing": False, "sorted": True},
    "hate_speech_policy": {"micro": 2, "checkpointing": False, "sorted": True},
}


def measure(
    arguments: argparse.Namespace, runner: Runner, common: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Run all rounds; return the result for JSON and its table."""
    if unknown := {*arguments.systems} - {*SYSTEMS} | {*arguments.prompts} - {*PROMPTS}:
        raise SystemExit(f"Unknown system or prompt: {', '.join(sorted(unknown))}.")
    rows: list[dict[str, Any]] = []
    probes: dict[str, Any] = {}
    agreement: dict[str, Any] = {}
    for prompt in arguments.prompts:
        works = {name: _work(name, prompt, arguments, common) for name in arguments.systems}
        probe = Work(
            "probe", template=prompt, max_length=PROMPTS[prompt], steps=arguments.steps, **common
        )
        results: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number in range(arguments.rounds):
            print(f"{prompt}, round {number + 1} of {arguments.rounds}", flush=True)
            results["probe"].append(runner.run(probe, f"{prompt}-probe"))
            for name, work in works.items():
                seeded = work.but(adapter_seed=arguments.seed + number)
                results[name].append(runner.run(seeded, f"{prompt}-{name}"))
        probe_results = results.pop("probe")
        probes[prompt] = _probe_summary(probe_results)
        for name, work in works.items():
            work_fields = {
                "batch": work.batch,
                "micro": work.micro,
                "max_length": work.max_length,
                "checkpointing": work.checkpointing,
                "rank": work.rank,
                "options": work.options,
            }
            line = figures.row(
                (name, prompt), work_fields, results, probe_results, arguments.warm_up
            )
            rows.append(line | {"checkpointing_why": _why(work)})
        if {"trl", "fairtune"} <= results.keys():
            curves = [[run["losses"] for run in results[name]] for name in ("trl", "fairtune")]
            agreement[prompt] = figures.agreement(*curves)
    result = machine.stamp(arguments.model) | {
        "about": (
            f"NF4 with double quantization, {common['dtype']}, LoRA r = 32 on q_proj and v_proj, "
            f"lora_dropout {arguments.dropout:g}, effective batch {BATCH}, "
            f"{arguments.rounds} alternating rounds, {arguments.warm_up} warm-up step each, rows "
            f"of {'the bundled sample' if arguments.rows is None else arguments.rows.name}; median "
            "(minimum to maximum)"
        ),
        "dtype": common["dtype"],
        "rounds": arguments.rounds,
        "probes": probes,
        "agreement": agreement,
        "rows": rows,
    }
    return result, table.throughput(result)


def _work(name: str, prompt: str, arguments: argparse.Namespace, common: dict[str, Any]) -> Work:
    """Return the work with `micro` and `checkpointing` as the system will use them."""
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
    """Return the settings of the prompt with `changes` merged into them, named as `systems.trl`."""
    options = TRL[work.template] | changes
    return work.but(
        micro=options.pop("micro"), checkpointing=options.pop("checkpointing"), options=options
    )


def fairtune_work(work: Work, options: dict[str, Any]) -> Work:
    """Return the work with a run's defaults, but without checkpointing unless `options` set it."""
    training = RunSpec.model_validate(overlay(spec_of(work), options)).training
    return work.but(
        options=options,
        micro=training.per_device_train_batch_size,
        checkpointing=training.gradient_checkpointing,
    )


def _why(work: Work) -> str:
    default = work.checkpointing == (work.system == "original")
    return WHY[work.system] if default else "as set on the command line"


def _probe_summary(probes: list[dict[str, Any]]) -> dict[str, Any]:
    steps = probes[0]["steps"]
    return {
        "peak": median([probe["peak"] for probe in probes]),
        "peaks": [probe["peak"] for probe in probes],
        "peak_cached": median([probe["peak_cached"] for probe in probes]),
        "needed": round(median([step["prefix"] + sum(step["suffixes"]) for step in steps])),
        "real": round(median([step["real"] for step in steps])),
        "prefix": round(median([step["prefix"] for step in steps])),
        "targets": round(median([step["targets"] for step in steps])),
    }
