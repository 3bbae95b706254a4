"""The files that a run leaves: transformers' result files, and the model card."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.domain.job import Job
from service.domain.spec import TrainingSection
from service.domain.steps import StepPlan
from service.fairness import BiasReport
from worker.training.checkpoints import LoopState


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def trainer_state(state: LoopState, plan: StepPlan, training: TrainingSection) -> dict[str, Any]:
    """trainer_state.json in transformers' layout (TrainerState.load_from_json reads it)."""
    best = state.best_step
    return {
        "best_global_step": best,
        "best_metric": state.best_metric,
        "best_model_checkpoint": None if best is None else f"checkpoints/checkpoint-{best}",
        "epoch": plan.epoch(state.step),
        "eval_steps": training.eval_steps,
        "global_step": state.step,
        "is_hyper_param_search": False,
        "is_local_process_zero": True,
        "is_world_process_zero": True,
        "log_history": state.log_history,
        "logging_steps": training.logging_steps,
        "max_steps": plan.total_steps,
        "num_input_tokens_seen": 0,
        "num_train_epochs": math.ceil(plan.epoch(plan.total_steps)),
        "save_steps": training.save_steps,
        "stateful_callbacks": {},
        "total_flos": 0,
        "train_batch_size": training.per_device_train_batch_size,
        "trial_name": None,
        "trial_params": None,
    }


def validation_at(history: Sequence[Mapping[str, float]], step: int) -> dict[str, float]:
    """What the validation at `step` found, by name; empty where there was none."""
    found: dict[str, float] = {}
    for entry in history:
        if entry["step"] == step and "eval_loss" in entry:
            found = {name: value for name, value in entry.items() if name != "step"}
    return found


def results(
    trained: dict[str, Any],
    chosen_step: int,
    samples: int,
    seconds: float,
    mean_loss: float,
    report: BiasReport | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """train_results.json and eval_results.json, in the names that transformers' Trainer uses.

    The latter holds the chosen step's validation figures and the report's, as `test_f1` and so on.
    """
    steps = trained["global_step"]
    train = {
        "epoch": trained["epoch"],
        "train_loss": mean_loss,
        "train_runtime": seconds,
        "train_samples": samples,
        "train_samples_per_second": trained["epoch"] * samples / max(seconds, 1e-9),
        "train_steps_per_second": steps / max(seconds, 1e-9),
    }
    evaluated = validation_at(trained["log_history"], chosen_step)
    if report is not None:
        for name in ("accuracy", "precision", "recall", "f1", "fpr", "fnr", "auc"):
            value = getattr(report.overall.tuned, name).value
            if value is not None:
                evaluated[f"{report.meta.split}_{name}"] = value
    return train, evaluated


def model_card(
    job: Job,
    rows: dict[str, int],
    labels: list[str],
    steps: int,
    chosen_step: int,
    trainable: int,
    evaluated: dict[str, float],
    report: BiasReport | None,
) -> str:
    """README.md of the adapter, with the metadata that the hub and peft read."""
    spec = job.spec
    training, lora, quantization = spec.training, spec.lora, spec.quantization
    # A quoted JSON string is a YAML string, whatever a user put into the name.
    title = json.dumps(spec.name or job.run_id)
    held = (
        f"4-bit ({quantization.bnb_4bit_quant_type}) while training"
        if quantization.load_in_4bit
        else "16- or 32-bit"
    )
    named = ", ".join(f"`{_plain(label)}`" for label in labels) or "labels"
    targets = lora.target_modules
    named_layers = [targets] if isinstance(targets, str) else targets
    layers = ", ".join([*named_layers, *lora.target_parameters])
    lines = [
        "---",
        f"base_model: {json.dumps(spec.base_model)}",
        "library_name: peft",
        "pipeline_tag: text-classification",
        "license: other",
        "license_name: as-the-base-model",
        "tags: [lora, fairtune]",
        f"model_name: {title}",
        "---",
        "",
        f"# {_plain(spec.name or job.run_id)}",
        "",
        f"A LoRA adapter that makes `{spec.base_model}` a classifier, trained by Fairtune in run",
        f"`{job.run_id}`. Its licence is that of the base model and of the data, which Fairtune",
        "does not know.",
        "",
        "## Intended use",
        "",
        f"Classifying short texts into {named} under the prompt template `{job.template.name}`.",
        "The probability of a label is that of its whole answer against the other labels' answers.",
        "Not for decisions about people without a person who looks at them; see the rates by group",
        "below for whom it gets wrong.",
        "",
        f"Rows of the data: {', '.join(f'{count} {split}' for split, count in rows.items())}.",
        "",
        "## Training",
        "",
        "| | |",
        "| --- | --- |",
        f"| base weights | {held} |",
        f"| LoRA | r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout} |",
        f"| layers with an adapter | {layers} |",
        f"| trained parameters | {trainable:,} |",
        f"| learning rate | {training.learning_rate:g}, {training.lr_scheduler_type} |",
        f"| effective batch | {spec.effective_batch_size} rows |",
        f"| longest sequence | {training.max_seq_length} tokens |",
        f"| steps | {steps}, weights of step {chosen_step} |",
        f"| seed | {spec.seed} |",
        "",
    ]
    if evaluated:
        lines += ["## Results", "", "| figure | value |", "| --- | --- |"]
        lines += [f"| {name} | {value:.4f} |" for name, value in evaluated.items()]
        lines.append("")
    if report is not None and report.groups:
        lines += [
            f"By group, {report.meta.split} split (false-positive and false-negative rate):",
            "",
            "| group | rows | FPR | FNR |",
            "| --- | --- | --- | --- |",
        ]
        for group in report.groups:
            rates = (group.tuned.fpr.value, group.tuned.fnr.value)
            shown = ["n/a" if rate is None else f"{rate:.3f}" for rate in rates]
            lines.append(f"| {_plain(group.group)} | {group.n} | {shown[0]} | {shown[1]} |")
        lines += ["", "`bias_report.json` has the intervals and the verdict on each cap.", ""]
    lines += [
        "## How to load it",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(spec.base_model)})",
        'model = PeftModel.from_pretrained(model, "this directory")',
        "```",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would act on."""
    return "".join("_" if sign in "<>|`[]*#\\" else sign for sign in " ".join(text.split()))
