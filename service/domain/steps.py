"""Number of optimizer steps of a training."""

import math
from dataclasses import dataclass

from service.domain.training_spec import TrainingSection
from service.domain.wording import count


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Optimizer steps of a training; the last step of an epoch may have fewer samples."""

    samples: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int

    @classmethod
    def of(cls, training: TrainingSection, samples: int, world: int = 1) -> "StepPlan":
        """Plan a training on `samples` >= 1 rows over `world` processes."""
        per_epoch = math.ceil(samples / (training.effective_batch_size * world))
        if training.max_steps is not None:
            total = training.max_steps
        else:
            assert training.num_train_epochs is not None
            total = math.ceil(per_epoch * training.num_train_epochs)
        warmup = training.warmup_steps or 0
        if training.warmup_ratio:
            warmup = math.ceil(total * training.warmup_ratio)
        return cls(samples, per_epoch, total, warmup)

    def epoch(self, step: int) -> float:
        """Return the (fractional) number of epochs after `step` optimizer steps."""
        return step / self.steps_per_epoch

    def evaluations(self, training: TrainingSection) -> int:
        """Return the number of evaluations during the training; the last step is one of them."""
        if training.eval_strategy == "no":
            return 0
        if training.eval_strategy == "steps":
            assert training.eval_steps is not None
            return math.ceil(self.total_steps / training.eval_steps)
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def evaluation_warning(self, training: TrainingSection, *, chooses: bool) -> str | None:
        """Return a warning if no checkpoint is compared with another, else None.

        `chooses`: the run chooses by more than the loss. An epoch is its own choice otherwise.
        """
        if not training.load_best_model_at_end and not training.early_stopping_patience:
            return None
        if training.eval_strategy == "no":
            return (
                "training.eval_strategy is no: nothing is evaluated during training, so that "
                "load_best_model_at_end has no effect and the last weights are used"
            )
        if self.evaluations(training) > 1 or (training.eval_strategy == "epoch" and not chooses):
            return None
        remedy = "set training.num_train_epochs above 1, or eval_strategy to steps"
        if training.eval_strategy == "steps":
            remedy = f"set training.eval_steps and save_steps below {self.total_steps}"
        return (
            f"the only evaluation is the one after the last of {count(self.total_steps, 'step')}: "
            "no checkpoint is compared with another, and training cannot stop early; " + remedy
        )

    def warmup_warning(self) -> str | None:
        """Return a warning if the warm-up takes more than a third of the training, else None."""
        if self.warmup_steps * 3 <= self.total_steps:
            return None
        # One step is more than a third of two.
        advice = f"about {max(1, self.total_steps // 10)}" if self.total_steps > 2 else "0"
        return (
            f"the warm-up takes {self.warmup_steps} of {count(self.total_steps, 'step')}, more "
            "than a third: the learning rate is far below its configured value for much of the "
            f"training; set training.warmup_steps to {advice}"
        )
