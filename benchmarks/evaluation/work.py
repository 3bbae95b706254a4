"""What one process is told to measure, and the rows that it is told to measure with."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from service.domain.spec import RunSpec, overlay

T = TypeVar("T")

SIZES = (8, 16, 32)
"""Rows a batch that generating is tried with."""


@dataclass(frozen=True, slots=True)
class Work:
    system: Literal["fairtune", "generate"]
    model: str
    models_dir: str
    rows: str
    """Labelled JSON lines, of `benchmarks.unified`."""
    template: str
    max_length: int
    sample: int
    """Rows, at equal distances, that are generated for, and scored apart from all."""
    spec: dict[str, Any] = field(default_factory=dict)
    """Laid over a run's defaults."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))

    def run_spec(self) -> RunSpec:
        given = {
            "dataset_id": "benchmark",
            "base_model": self.model,
            "template": self.template,
            "training": {"max_seq_length": self.max_length},
        }
        return RunSpec.model_validate(overlay(given, self.spec))


def at_equal_distances(items: Sequence[T], count: int) -> list[T]:
    """`count` of them, or all where there are fewer."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]
