"""Settings of one measurement process, and the choice of its rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from service.domain.spec import RunSpec, overlay

T = TypeVar("T")

SIZES = (8, 16, 32)
"""Batch sizes, in rows, that are tried for generation."""


@dataclass(frozen=True, slots=True)
class Work:
    system: Literal["fairtune", "generate"]
    model: str
    models_dir: str
    rows: str
    """Path of the labelled JSON lines from `benchmarks.unified`."""
    template: str
    max_length: int
    sample: int
    """Number of rows, at equal distances, for generation and for separate scoring."""
    spec: dict[str, Any] = field(default_factory=dict)
    """Merged into a run's defaults."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))

    def run_spec(self) -> RunSpec:
        defaults = {
            "dataset_id": "benchmark",
            "base_model": self.model,
            "template": self.template,
            "training": {"max_seq_length": self.max_length},
        }
        return RunSpec.model_validate(overlay(defaults, self.spec))


def at_equal_distances(items: Sequence[T], count: int) -> list[T]:
    """Return `count` of the items at equal distances, or all if there are fewer."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]
