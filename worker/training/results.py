"""The result files of a run, in the names and layout of transformers' Trainer."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.domain.job import checkpoint_path
from service.domain.steps import StepPlan
from service.domain.training_spec import TrainingSection
from service.fairness import BiasReport
from worker.training.checkpoints import LoopState

_THRESHOLD_METRICS = ("accuracy", "precision", "recall", "f1", "fpr", "fnr")
"""Metrics that depend on the threshold."""


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def trainer_state(state: LoopState, plan: StepPlan, training: TrainingSection) -> dict[str, Any]:
    """Return trainer_state.json in transformers' layout, for TrainerState.load_from_json."""
    best, chosen_standing = state.best_step, state.best_standing
    return {
        "best_global_step": best,
        "best_metric": state.best_metric if chosen_standing is None else chosen_standing.f1,
        "best_model_checkpoint": None if best is None else checkpoint_path(best),
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
    """Return the validation metrics at `step`; empty if there was no evaluation."""
    metrics: dict[str, float] = {}
    for entry in history:
        if entry["step"] == step and "eval_loss" in entry:
            metrics = {name: value for name, value in entry.items() if name != "step"}
    return metrics


def results(
    trained: dict[str, Any],
    chosen_step: int,
    samples: int,
    seconds: float,
    mean_loss: float,
    report: BiasReport | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return train_results.json and eval_results.json, in the names of transformers' Trainer.

    The latter holds the chosen step's validation metrics and the report's, as `test_f1` and so on,
    by the run's own threshold rule. If a threshold was fitted, it is added as `threshold_fitted`,
    and the metrics at it as `test_f1_fitted` and so on.
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
        for name in (*_THRESHOLD_METRICS, "auc"):
            value = getattr(report.overall.tuned, name).value
            if value is not None:
                evaluated[f"{report.meta.split}_{name}"] = value
        for by_threshold in report.thresholds:
            if by_threshold.rule == "fitted" and by_threshold.threshold is not None:
                evaluated["threshold_fitted"] = by_threshold.threshold
                for name in _THRESHOLD_METRICS:
                    value = getattr(by_threshold.overall, name).value
                    if value is not None:
                        evaluated[f"{report.meta.split}_{name}_fitted"] = value
    return train, evaluated
