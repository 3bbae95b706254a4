"""How many optimizer steps a training takes."""

import math
from dataclasses import dataclass

from service.domain.spec import TrainingSection


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The last step of an epoch may have fewer samples than the others."""

    samples: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int

    @classmethod
    def of(cls, training: TrainingSection, samples: int, world: int = 1) -> "StepPlan":
        """`samples` >= 1 rows over `world` processes."""
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
        return step / self.steps_per_epoch

    def warmup_warning(self) -> str | None:
        """A sentence where the warm-up takes more than a third of the training."""
        if self.warmup_steps * 3 <= self.total_steps:
            return None
        return (
            f"the warm-up takes {self.warmup_steps} of {self.total_steps} steps, more than a "
            "third: the learning rate is far below what was asked for most of the time; set "
            f"training.warmup_steps to {max(1, self.total_steps // 10)} or so"
        )
