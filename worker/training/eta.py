"""Training speed and estimated remaining time."""

import math
from collections import deque

from service.domain.steps import StepPlan
from service.domain.training_spec import TrainingSection


class EtaEstimator:
    """Estimates from the last steps of this process; evaluations are timed separately."""

    def __init__(self, training: TrainingSection, plan: StepPlan, validation: int) -> None:
        self._training = training
        self._plan = plan
        self._validation = validation
        self._recent: deque[tuple[int, float]] = deque(maxlen=20)
        self.evaluation_seconds: float | None = None
        """Duration of the last evaluation."""

    def record_step(self, samples: int, seconds: float) -> float:
        """Record a step; return samples per second."""
        self._recent.append((samples, seconds))
        return self.speed() or 0.0

    def speed(self) -> float | None:
        """Return samples per second; None before the first step."""
        if not self._recent:
            return None
        return sum(n for n, _ in self._recent) / max(sum(s for _, s in self._recent), 1e-9)

    def seconds_left(self, step: int) -> float | None:
        """Return the seconds to the last step, evaluations included; None before the first step."""
        speed = self.speed()
        if speed is None:
            return None
        remaining = self._plan.total_steps - step
        samples = remaining * self._plan.samples / self._plan.steps_per_epoch
        # Before the first evaluation: a forward pass alone takes about a third of a training step.
        evaluation = self.evaluation_seconds or self._validation / speed / 3
        return samples / speed + evaluation * self._evaluations(remaining)

    def _evaluations(self, steps: int) -> int:
        if not self._validation or self._training.eval_strategy == "no":
            return 0
        interval = self._training.eval_steps or self._plan.steps_per_epoch
        return math.ceil(steps / interval)
