"""The training loop, to be read from top to bottom.

Every random number is drawn after seeding by (seed, step, slot), and the order of rows is a function
of seed and epoch: what a step does depends on the weights, the optimizer and its number alone. That
is why a resumed run is the run that was never stopped, bit for bit on one kind of machine.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from service.domain.errors import ProgramFailure
from service.domain.events import CheckpointEvent, MetricsEvent, Progress
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from worker.programs.reporter import Reporter, Stop, Stopped, file_entry
from worker.training import checkpoints
from worker.training.batches import (
    Plan,
    epoch_order,
    loss_sum,
    micro_batches,
    mix,
    target_count,
)
from worker.training.checkpoints import LoopState, Restored, Tensors
from worker.training.examples import Example
from worker.training.models import set_training

BETWEEN_PROGRESS = 2.0
"""Seconds between signs of life while an evaluation runs."""


@dataclass
class Trainer:
    """One training run. `run` ends with the last step, by early stopping, or raises `Stopped`."""

    model: Any
    accelerator: Any
    examples: list[Example]
    validation: list[Example]
    spec: RunSpec
    pad: int
    directory: Path
    reporter: Reporter
    stop: Stop
    board: Callable[[dict[str, float], int], None]
    """Where metrics go besides the events: TensorBoard."""
    seconds_after: float = 0.0
    """Expected for what the job does after training."""

    def __post_init__(self) -> None:
        training = self.spec.training
        self.plan = Plan.of(training, len(self.examples), self.accelerator.num_processes)
        self.state = LoopState()
        self.best_adapter: Tensors | None = None
        self.optimizer = _optimizer(self.model, self.spec)
        self.model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        self.scheduler = _scheduler(self.optimizer, self.spec, self.plan)
        self._recent: deque[tuple[int, float]] = deque(maxlen=20)
        self._evaluation_seconds: float | None = None
        self._saved: int | None = None

    def restore(self, restored: Restored) -> None:
        inner = self.accelerator.unwrap_model(self.model)
        checkpoints.load_adapter(inner, restored.adapter)
        checkpoints.load_optimizer(self.optimizer, restored.optimizer)
        self.scheduler.load_state_dict(restored.scheduler)
        for group, rate in zip(
            self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True
        ):
            group["lr"] = rate
        self.state = restored.state
        self.best_adapter = restored.best_adapter
        if self.state.best_step == self.state.step:
            self.best_adapter = restored.adapter

    def run(self) -> None:
        state, plan = self.state, self.plan
        with self.stop.deferred():
            if not state.boundary_done:
                self._boundary()
            while state.step < plan.total_steps and not state.stopped_early:
                began = time.monotonic()
                loss, samples = self._step()
                state.step += 1
                state.window_loss += loss
                state.window_steps += 1
                state.total_loss += loss
                seconds = time.monotonic() - began
                state.seconds += seconds
                self._recent.append((samples, seconds))
                state.last_speed = self._speed()
                self._progress()
                state.boundary_done = False
                self._halt_if_asked()
                self._boundary()
            if self.spec.training.save_strategy != "no" and self._saved != state.step:
                self._save()
        if self.spec.training.load_best_model_at_end and self.best_adapter is not None:
            checkpoints.load_adapter(self.accelerator.unwrap_model(self.model), self.best_adapter)

    @property
    def chosen_step(self) -> int:
        """The step whose weights the model holds when `run` has returned."""
        if self.spec.training.load_best_model_at_end and self.state.best_step is not None:
            return self.state.best_step
        return self.state.step

    def _step(self) -> tuple[float, int]:
        """One optimizer step: mean loss in nats per target token, number of samples."""
        training, seed, step = self.spec.training, self.spec.seed, self.state.step
        epoch, place = divmod(step, self.plan.steps_per_epoch)
        order = epoch_order(len(self.examples), seed, epoch)
        size = training.effective_batch_size
        batch = [self.examples[row] for row in order[place * size : (place + 1) * size]]
        tokens = sum(target_count(example, training.train_on) for example in batch)
        rate = self.scheduler.get_last_lr()[0]

        set_training(self.model, training=True)
        total = torch.zeros((), device=self.accelerator.device)
        for slot, micro in enumerate(micro_batches(batch, training.per_device_train_batch_size)):
            torch.manual_seed(mix(seed, step, slot))
            # Over the tokens of the whole batch: how it is cut must not weigh its rows.
            loss = (
                loss_sum(self.model, micro, training.train_on, self.pad, self.accelerator.device)
                / tokens
            )
            self.accelerator.backward(loss)
            total += loss.detach()
        norm = self.accelerator.clip_grad_norm_(
            self.model.parameters(), training.max_grad_norm or math.inf
        )
        loss_value, norm_value = total.item(), float(norm)
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            raise ProgramFailure(
                FailureReason.DIVERGED,
                f"Step {step + 1}: loss {loss_value}, gradient norm {norm_value}, at learning rate "
                f"{rate:.3g}.",
            )
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.state.last_norm, self.state.last_rate = norm_value, rate
        return loss_value, len(batch)

    def _boundary(self) -> None:
        """What falls on the step just made: log, evaluate, save. In that order, once."""
        training, state = self.spec.training, self.state
        last = state.step == self.plan.total_steps
        if state.window_steps and (state.step % training.logging_steps == 0 or last):
            values = {
                "loss": state.window_loss / state.window_steps,
                "grad_norm": state.last_norm,
                "learning_rate": state.last_rate,
                "samples_per_second": state.last_speed,
            }
            state.window_loss, state.window_steps = 0.0, 0
            self._log(values)
        evaluated = None
        if self.validation and self._due(training.eval_strategy, training.eval_steps):
            evaluated = self._evaluate()
            self._judge(evaluated["eval_loss"])
            self._log(evaluated)
        state.boundary_done = True
        if self._due(training.save_strategy, training.save_steps):
            self._save(evaluated)

    def _due(self, strategy: str, every: int | None) -> bool:
        if strategy == "epoch":
            last = self.state.step == self.plan.total_steps
            return last or self.state.step % self.plan.steps_per_epoch == 0
        return strategy == "steps" and every is not None and self.state.step % every == 0

    def _judge(self, loss: float) -> None:
        """Early stopping as transformers' EarlyStoppingCallback has it, then the best checkpoint.

        Patience counts evaluations that are not better than the best so far by more than the
        threshold; any improvement at all, however small, is the new best.
        """
        training, state = self.spec.training, self.state
        best = state.best_metric
        if best is None or best - loss > training.early_stopping_threshold:
            state.stale = 0
        else:
            state.stale += 1
        patience = training.early_stopping_patience
        state.stopped_early = 0 < patience <= state.stale
        if best is None or loss < best:
            state.best_metric, state.best_step = loss, state.step
            self.best_adapter = checkpoints.adapter_tensors(
                self.accelerator.unwrap_model(self.model)
            )

    def _evaluate(self) -> dict[str, float]:
        training = self.spec.training
        began = time.monotonic()
        spoke = began
        total, tokens = 0.0, 0
        set_training(self.model, training=False)
        with torch.no_grad():
            for micro in micro_batches(self.validation, training.per_device_eval_batch_size):
                self._halt_if_asked()
                total += loss_sum(
                    self.model, micro, training.train_on, self.pad, self.accelerator.device
                ).item()
                tokens += sum(target_count(example, training.train_on) for example in micro)
                if time.monotonic() - spoke > BETWEEN_PROGRESS:
                    self._progress()
                    spoke = time.monotonic()
        if not math.isfinite(total):
            raise ProgramFailure(
                FailureReason.DIVERGED, f"Step {self.state.step}: validation loss {total}."
            )
        seconds = self._evaluation_seconds = time.monotonic() - began
        return {
            "eval_loss": total / tokens,
            "eval_runtime": seconds,
            "eval_samples_per_second": len(self.validation) / seconds,
        }

    def _halt_if_asked(self) -> None:
        """Save and raise `Stopped` if TERM came; resuming does what falls on this step first."""
        if self.stop.requested:
            if self._saved != self.state.step:
                self._save()
            raise Stopped

    def _save(self, evaluated: dict[str, float] | None = None) -> None:
        state = self.state
        name = f"checkpoint-{state.step}"
        directory = self.directory / "checkpoints" / name
        checkpoints.write(
            directory,
            model=self.accelerator.unwrap_model(self.model),
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            state=state,
            trainer_state=self.trainer_state(),
            best_adapter=self.best_adapter,
        )
        self._saved = state.step
        self.reporter.emit(
            CheckpointEvent,
            step=state.step,
            epoch=self.plan.epoch(state.step),
            path=f"checkpoints/{name}",
            files=[file_entry(path, directory) for path in sorted(directory.iterdir())],
            metrics=evaluated or {},
            best_step=state.best_step,
        )

    def trainer_state(self) -> dict[str, Any]:
        """trainer_state.json in transformers' layout."""
        state, training = self.state, self.spec.training
        best = state.best_step
        return {
            "best_global_step": best,
            "best_metric": state.best_metric,
            "best_model_checkpoint": None if best is None else f"checkpoints/checkpoint-{best}",
            "epoch": self.plan.epoch(state.step),
            "eval_steps": training.eval_steps,
            "global_step": state.step,
            "is_hyper_param_search": False,
            "is_local_process_zero": True,
            "is_world_process_zero": True,
            "log_history": state.log_history,
            "logging_steps": training.logging_steps,
            "max_steps": self.plan.total_steps,
            "num_input_tokens_seen": 0,
            "num_train_epochs": math.ceil(self.plan.epoch(self.plan.total_steps)),
            "save_steps": training.save_steps,
            "stateful_callbacks": {},
            "total_flos": 0,
            "train_batch_size": training.per_device_train_batch_size,
            "trial_name": None,
            "trial_params": None,
        }

    def _log(self, values: dict[str, float]) -> None:
        step, epoch = self.state.step, self.plan.epoch(self.state.step)
        self.state.log_history.append(values | {"epoch": epoch, "step": step})
        self.reporter.emit(MetricsEvent, step=step, epoch=epoch, values=values)
        self.board(values, step)

    def _speed(self) -> float:
        """Samples per second over the last steps."""
        return sum(n for n, _ in self._recent) / max(sum(s for _, s in self._recent), 1e-9)

    def progress_after(self, left: float) -> None:
        """Say that training is done and that scoring takes `left` more seconds."""
        step = self.state.step
        self.reporter.emit(
            Progress,
            step=step,
            total_steps=self.plan.total_steps,
            epoch=self.plan.epoch(step),
            eta_seconds=left,
        )

    def _progress(self) -> None:
        step, total = self.state.step, self.plan.total_steps
        speed = self._speed() if self._recent else None
        eta = None
        if speed:
            left = (total - step) * min(self.spec.training.effective_batch_size, len(self.examples))
            # A forward pass alone is about a third of a training step.
            one = self._evaluation_seconds or len(self.validation) / speed / 3
            eta = left / speed + one * self._evaluations_left() + self.seconds_after
        self.reporter.emit(
            Progress,
            step=step,
            total_steps=total,
            epoch=self.plan.epoch(step),
            samples_per_second=speed,
            eta_seconds=eta,
        )

    def _evaluations_left(self) -> int:
        training = self.spec.training
        left = self.plan.total_steps - self.state.step
        if not self.validation or training.eval_strategy == "no":
            return 0
        if training.eval_strategy == "steps":
            assert training.eval_steps is not None
            return left // training.eval_steps
        return math.ceil(left / self.plan.steps_per_epoch)


def _optimizer(model: Any, spec: RunSpec) -> torch.optim.Optimizer:  # noqa: ANN401
    trained = [p for p in model.parameters() if p.requires_grad]
    # Biases are not decayed, as in transformers' Trainer.
    groups = [
        {
            "params": [p for p in trained if p.dim() >= 2],
            "weight_decay": spec.training.weight_decay,
        },
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=spec.training.learning_rate
    )


def _scheduler(optimizer: torch.optim.Optimizer, spec: RunSpec, plan: Plan) -> Any:  # noqa: ANN401
    from transformers import get_scheduler

    return get_scheduler(
        spec.training.lr_scheduler_type,
        optimizer,
        num_warmup_steps=plan.warmup_steps,
        num_training_steps=plan.total_steps,
    )
