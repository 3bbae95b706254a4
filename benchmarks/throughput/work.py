"""Settings of one measurement process, equal for all systems except for `options`."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

System = Literal["original", "trl", "fairtune", "probe"]

BATCH = 16
"""Samples per optimizer step, as in the published presets for one process."""


@dataclass(frozen=True, slots=True)
class Work:
    """One run. `began` is its start by time.monotonic, a clock that all processes share."""

    system: System
    model: str
    models_dir: str
    rows: str
    """Canonical rows as Parquet."""
    template: str
    max_length: int
    steps: int
    completions: dict[str, str] | None = None
    batch: int = BATCH
    micro: int = 4
    """Rows per forward pass, for systems that count rows."""
    checkpointing: bool = False
    seed: int = 42
    """Seed of the row order, the same in every round."""
    adapter_seed: int = 42
    rank: int = 32
    dropout: float = 0.0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Dtype of all weights that are not in 4 bits, and of all matrix products."""
    learning_rate: float = 2e-4
    system_share: float = 1.0
    """Share of the template's system turn in the prompt, for other prompt lengths."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the system: see `trl` and `fairtune`."""
    began: float = 0.0

    def but(self, **changes: Any) -> "Work":
        return replace(self, **changes)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))


def spec_of(work: Work) -> dict[str, Any]:
    """Return the run specification that all systems use, as far as it applies to them."""
    training: dict[str, Any] = {
        "learning_rate": work.learning_rate,
        "max_steps": work.steps,
        "num_train_epochs": None,
        "per_device_train_batch_size": work.micro,
        "gradient_accumulation_steps": work.batch // work.micro,
        "warmup_steps": 0,
        "max_seq_length": work.max_length,
        "gradient_checkpointing": work.checkpointing,
        "early_stopping_patience": 0,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "bf16": work.dtype == "bfloat16",
    }
    return {
        "dataset_id": "benchmark",
        "base_model": work.model,
        "template": work.template,
        "seed": work.seed,
        "lora": {"r": work.rank, "lora_alpha": work.rank, "lora_dropout": work.dropout},
        "quantization": {"bnb_4bit_compute_dtype": work.dtype},
        "training": training,
    }
