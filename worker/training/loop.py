"""The training loop, to be read from top to bottom.

Every random number is drawn after seeding by (seed, step, slot), and the order of rows is a
function of seed and epoch: a step depends only on the weights, the optimizer state and its number.
A resumed run therefore equals an uninterrupted run, bit for bit on the same kind of machine.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from service.domain.errors import ProgramFailure
from service.domain.events import MetricsEvent, Progress
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from service.domain.steps import StepPlan
from service.fairness.selection import CheckpointScore
from worker.data.tokenize import Example
from worker.modeling.load import set_training
from worker.runtime.disk_full import DiskSpace
from worker.runtime.distributed import World
from worker.runtime.events import Reporter, Stopped, StopSignal
from worker.runtime.gpu import peak_gpu_memory
from worker.runtime.out_of_memory import detect_out_of_memory
from worker.runtime.progress import PROGRESS_INTERVAL_SECONDS
from worker.training import checkpoints
from worker.training.checkpoint_writer import CheckpointWriter
from worker.training.checkpoints import CheckpointContent, LoopState, Tensors
from worker.training.choose_method import choose_method
from worker.training.eta import EtaEstimator
from worker.training.padded import Method, target_count
from worker.training.results import trainer_state
from worker.training.schedule import epoch_order, make_optimizer, make_scheduler, seed_generators
from worker.training.selection import Selection
from worker.training.stopping import update_best


@dataclass
class Trainer:
    """One training run. `run` ends with the last step or early stopping, or raises `Stopped`."""

    model: Any
    accelerator: Any
    examples: list[Example]
    validation: list[Example]
    spec: RunSpec
    pad: int
    directory: Path
    reporter: Reporter
    stop: StopSignal
    space: DiskSpace
    board: Callable[[dict[str, float], int], None]
    """Receives the metrics and their step in addition to the events: TensorBoard."""
    world: World = field(default_factory=World)
    train_batch_size: int | None = None
    eval_batch_size: int | None = None
    """Rows per forward pass; None: as specified. The effective batch size does not change."""
    seconds_after: float = 0.0
    """Expected seconds for the rest of the job, after training."""
    selection: Selection | None = None
    """Criterion for the best weights; None: the lowest validation loss."""

    method: Method = field(init=False)
    _validation_micros: list[tuple[int, Any]] | None = field(init=False, default=None)
    _last_progress: float = field(init=False, default=0.0)
    """Time of the last progress event of an evaluation."""

    def __post_init__(self) -> None:
        training = self.spec.training
        self.plan = StepPlan.of(training, len(self.examples), self.world.size)
        self.state = LoopState()
        self.best_adapter: Tensors | None = None
        self.optimizer = make_optimizer(self.model, training)
        # The model is on its device; accelerate rejects 4-bit weights on any GPU but the first.
        self.optimizer = self.accelerator.prepare(self.optimizer)
        self.scheduler = make_scheduler(self.optimizer, training, self.plan)
        self.eta = EtaEstimator(training, self.plan, len(self.validation))
        self.checkpoint_writer = CheckpointWriter(self.directory, self.reporter, self.space)
        self.train_rows = self.train_batch_size or training.per_device_train_batch_size
        self.eval_rows = self.eval_batch_size or training.per_device_eval_batch_size

    def restore(self, restored: CheckpointContent) -> None:
        """Resume from a checkpoint. Raises BrokenCheckpoint for one of another model or adapter."""
        checkpoints.load_adapter(self.model, restored.adapter)
        checkpoints.load_optimizer(self.optimizer, restored.optimizer)
        self.scheduler.load_state_dict(restored.scheduler)
        for group, rate in zip(
            self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True
        ):
            group["lr"] = rate
        self.state = restored.state
        if self.state.boundary_done:  # else the checkpoint may be due again after its evaluation
            self.checkpoint_writer.last_step = self.state.step
        self.best_adapter = restored.best_adapter
        if self.state.best_step == self.state.step:
            self.best_adapter = restored.adapter

    def run(self) -> None:
        """Train to the last step. Raises Stopped, ProgramFailure, OSError."""
        state, plan = self.state, self.plan
        self._choose_method()
        self._check_ranks_agree()
        with self.stop.deferred():
            if not state.boundary_done:
                self._boundary()
            while state.step < plan.total_steps and not state.stopped_early:
                started = time.monotonic()
                with detect_out_of_memory("train", self.train_rows):
                    loss, samples = self._step()
                state.step += 1
                state.window_loss += loss
                state.window_steps += 1
                state.total_loss += loss
                seconds = time.monotonic() - started
                state.seconds += seconds
                state.last_speed = self.eta.record_step(samples, seconds)
                self._progress()
                state.boundary_done = False
                self._raise_if_stopped()
                self._boundary()
            if self.spec.training.save_strategy != "no" and self._save_pending:
                self.space.write_with_retry(f"checkpoint-{state.step}", self._save)
            self._check_ranks_agree()
        if self.spec.training.load_best_model_at_end and self.best_adapter is not None:
            checkpoints.load_adapter(self.model, self.best_adapter)

    @property
    def _rows_per_step(self) -> int:
        return self.spec.training.effective_batch_size * self.world.size

    def _choose_method(self) -> None:
        order = epoch_order(len(self.examples), self.spec.seed, 0)
        with detect_out_of_memory("train", self.train_rows):
            self.method, self.state.packing = choose_method(
                self.model,
                self.spec.training,
                self.pad,
                self.accelerator.device,
                self.world,
                previous_packing=self.state.packing,
                step_samples=[self.examples[row] for row in order[: self._rows_per_step]],
                rows=self.train_rows,
                on_fallback=lambda reason: self.reporter.warn(
                    "not_packed",
                    f"{self.spec.base_model} is trained on padded rows, which is slower: "
                    f"training.packing shared_prefix is not supported, because {reason}.",
                ),
                on_single_rows=lambda reason: self.reporter.warn(
                    "not_padded",
                    f"{self.spec.base_model} is trained on one row at a time, which is slower: it "
                    f"does not support padded rows, because {reason}.",
                ),
            )

    @property
    def chosen_step(self) -> int:
        """The step whose weights the model holds after `run`."""
        if self.spec.training.load_best_model_at_end and self.state.best_step is not None:
            return self.state.best_step
        return self.state.step

    def _step(self) -> tuple[float, int]:
        """Make one optimizer step; return mean loss in nats per target token, number of samples."""
        training, seed, step = self.spec.training, self.spec.seed, self.state.step
        epoch, position = divmod(step, self.plan.steps_per_epoch)
        order = epoch_order(len(self.examples), seed, epoch)
        size = self._rows_per_step
        batch = [self.examples[row] for row in order[position * size : (position + 1) * size]]
        tokens = sum(target_count(example, training.train_on) for example in batch)
        rate = self.scheduler.get_last_lr()[0]

        set_training(self.model, training=True)
        total = torch.zeros((), device=self.accelerator.device)
        with self.method.activated():
            micros = self.method.micro_batches(batch, self.train_rows, self.world.size)
            for slot, micro in self.world.share(micros):
                seed_generators(seed, step, slot)
                # Divided by the tokens of the whole batch, so that the split into micro-batches
                # does not change the weight of a row.
                loss = self.method.loss_sum(micro) / tokens
                self.accelerator.backward(loss)
                total += loss.detach()
        total = self.world.sum_gradients(self.model.parameters(), total)
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
        """Log, evaluate and save, in this order and once, if they are due at the current step."""
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
        if self.validation and self._due(training.eval_strategy, training.eval_steps):
            with detect_out_of_memory("eval", self.eval_rows):
                evaluated = self._evaluate()
            standing, figures = self._measure_selection()
            if update_best(state, evaluated["eval_loss"], training, standing):
                self.best_adapter = checkpoints.adapter_tensors(self.model)
            self._log(evaluated | figures)
        state.boundary_done = True
        due = (
            self._due(training.save_strategy, training.save_steps)
            or self.checkpoint_writer.retry_due
        )
        if due and self.world.is_rank_zero:
            self._save_unless_full()

    def _due(self, strategy: str, every: int | None) -> bool:
        if strategy == "no":
            return False
        # The weights after the last step are evaluated and saved whatever the interval is.
        interval = self.plan.steps_per_epoch if strategy == "epoch" else every
        assert interval is not None
        return self.state.step == self.plan.total_steps or self.state.step % interval == 0

    def _evaluate(self) -> dict[str, float]:
        training = self.spec.training
        started = self._last_progress = time.monotonic()
        total = 0.0
        tokens = sum(target_count(example, training.train_on) for example in self.validation)
        set_training(self.model, training=False)
        with torch.no_grad(), self.method.activated():
            if self._validation_micros is None:
                micros = self.method.micro_batches(self.validation, self.eval_rows, self.world.size)
                self._validation_micros = self.world.share(micros)
            for _, micro in self._validation_micros:
                self._heartbeat()
                total += self.method.loss_sum(micro).item()
        total = self.world.sum(torch.tensor(total, dtype=torch.float64)).item()
        if not math.isfinite(total):
            raise ProgramFailure(
                FailureReason.DIVERGED, f"Step {self.state.step}: validation loss {total}."
            )
        seconds = self.eta.evaluation_seconds = time.monotonic() - started
        return {
            "eval_loss": total / tokens,
            "eval_runtime": seconds,
            "eval_samples_per_second": len(self.validation) / seconds,
        }

    def _measure_selection(self) -> tuple[CheckpointScore | None, dict[str, float]]:
        """Return standing and metrics of the weights; (None, {}) if the loss alone decides."""
        if self.selection is None:
            return None, {}
        started = time.monotonic()
        measurement = self.selection.measure(self.model, self.state.step, self._heartbeat)
        previous_seconds = self.eta.evaluation_seconds or 0.0
        self.eta.evaluation_seconds = previous_seconds + time.monotonic() - started
        return measurement

    def _heartbeat(self) -> None:
        """Between two passes of an evaluation: stop if requested, else report progress at times."""
        self._raise_if_stopped()
        if time.monotonic() - self._last_progress > PROGRESS_INTERVAL_SECONDS:
            self._progress()
            self._last_progress = time.monotonic()

    def _raise_if_stopped(self) -> None:
        """Save and raise `Stopped` after TERM; a resumed run starts with this step's boundary.

        Of several processes only rank 0 gets the signal, and the others end with it: their work
        after the step that rank 0 saves is in no checkpoint.
        """
        if self.stop.requested:
            if self._save_pending:
                self._save_unless_full()
            raise Stopped

    @property
    def _save_pending(self) -> bool:
        return self.world.is_rank_zero and self.checkpoint_writer.last_step != self.state.step

    def _check_ranks_agree(self) -> None:
        """Raise ProgramFailure if the ranks' weights or optimizer states differ."""
        moments = self.optimizer.state_dict()["state"].values()
        self.world.check_identical(
            [p for p in self.model.parameters() if p.requires_grad]
            + [tensor for values in moments for tensor in values.values()],
            f"step {self.state.step}",
        )

    def _save(self) -> None:
        """Write a checkpoint. Raises if the disk is full, and then leaves no files."""
        state = self.state
        self._progress(saving=True)
        self.checkpoint_writer.save(
            state,
            self.plan.epoch(state.step),
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            trainer_state=self.trainer_state(),
            best_adapter=self.best_adapter,
        )

    def _save_unless_full(self) -> None:
        """Write a checkpoint; if the disk is full, continue training and retry at later steps."""
        if not self.checkpoint_writer.save_unless_full(self.state.step, self._save):
            self._progress()

    def trainer_state(self) -> dict[str, Any]:
        return trainer_state(self.state, self.plan, self.spec.training)

    def _log(self, values: dict[str, float]) -> None:
        step, epoch = self.state.step, self.plan.epoch(self.state.step)
        self.state.log_history.append(values | {"epoch": epoch, "step": step})
        self.reporter.emit(MetricsEvent, step=step, epoch=epoch, values=values)
        self.board(values, step)

    def progress_after(
        self, remaining: float | None, *, saving: bool = False, share: float | None = None
    ) -> None:
        """Report that training is done and that the job takes `remaining` more seconds.

        `share` is the completed share of the present phase; None if unknown.
        """
        self._emit_progress(None, remaining, saving, share)

    def _progress(self, *, saving: bool = False) -> None:
        remaining = self.eta.seconds_left(self.state.step)
        eta = None if remaining is None else remaining + self.seconds_after
        self._emit_progress(self.eta.speed(), eta, saving)

    def _emit_progress(
        self, speed: float | None, eta: float | None, saving: bool, share: float | None = None
    ) -> None:
        self.reporter.emit(
            Progress,
            step=self.state.step,
            total_steps=self.plan.total_steps,
            epoch=self.plan.epoch(self.state.step),
            samples_per_second=speed,
            eta_seconds=eta,
            gpu_memory_bytes=peak_gpu_memory(),
            phase_share=share,
            saving=saving,
        )
