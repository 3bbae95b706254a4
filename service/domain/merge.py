"""Merged models: the request, the task resolved from it, and the comparison with the adapter."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from service.domain.spec import Split
from service.domain.task import Task

MergedDtype = Literal["bfloat16", "float16", "float32"]
BaseWeights = Literal["original", "dequantized"]

MERGED_FOLDER = "merged"
"""Folder of a run's merged models, a folder each below it."""

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,3})?)"
_SIZE = re.compile(rf"{_NUMBER}\s*({'|'.join(_UNITS)})", re.IGNORECASE)
MIN_SHARD_BYTES = 10**6
"""With smaller files, a large model would have thousands of them."""
MAX_SHARD_BYTES = 10**12


class MergeRequest(BaseModel):
    """Body of POST /v1/runs/{id}/merged; omitted fields take their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    checkpoint: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="Step of the checkpoint to merge; null: the run's adapter.",
    )
    dtype: MergedDtype = Field(
        "bfloat16",
        description="Data type of the merged weights. Weights that the base model stores in "
        "float32 beside 16-bit ones stay float32.",
    )
    max_shard_size: str = Field(
        "5GB",
        description="Maximum size of a weight file, in the notation of transformers: 500MB, 5GB, "
        "2GiB; from 1MB to 1000GB. A single larger weight gets its own file.",
        json_schema_extra={"pattern": rf"^\s*{_NUMBER}\s*[KkMmGg][Ii]?[Bb]\s*$"},
    )
    base_weights: BaseWeights = Field(
        "original",
        description="original: merge into the base model's own weights. dequantized: merge into "
        "weights quantized to 4 bits and back, as seen in training; only for runs with "
        "load_in_4bit.",
    )

    @field_validator("max_shard_size")
    @classmethod
    def _check_size(cls, value: str) -> str:
        if not MIN_SHARD_BYTES <= (_bytes(value) or 0) <= MAX_SHARD_BYTES:
            raise PydanticCustomError(
                "size", "must be a size from 1MB to 1000GB, such as 500MB, 5GB or 2GiB"
            )
        return value

    @property
    def max_shard_bytes(self) -> int:
        size = _bytes(self.max_shard_size)
        assert size is not None
        return size


def _bytes(size: str) -> int | None:
    """Return a size in bytes, None if invalid. KB, MB, GB are powers of ten, as in transformers."""
    match = _SIZE.fullmatch(size.strip())
    return None if match is None else int(float(match[1]) * _UNITS[match[2].upper()])


class MergeTask(Task):
    """Parameters of a merge job.

    Two merges of a run with the same task are the same merge, unless the run was rewound past the
    merged weights in between.
    """

    target: Literal["adapter", "checkpoint"]
    step: int
    dtype: MergedDtype
    max_shard_bytes: Annotated[int, Field(ge=1)]
    base_weights: BaseWeights
    labels: list[str]
    """Labels of the run's training rows, sorted: merged model and adapter are compared on their
    probabilities. Empty: on the likelihood of the rows' own answers."""
    split: Split
    """Split of the run's dataset whose rows they are compared on."""


class MergeComparison(BaseModel):
    """Row-by-row comparison, on the same sample, of the merged model with the adapter on its base
    model as the run loads it.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    rows: int = Field(description="Number of rows compared.")
    split: str = Field(description="Split of the run's dataset from which the rows come.")
    labels_changed: int | None = Field(
        description="Rows whose argmax label differs between the two; null: the run has no labels."
    )
    max_difference: float = Field(
        description="Maximum difference in a label's probability; without labels, in the mean "
        "log-likelihood of the completion's tokens, in nats."
    )
    mean_difference: float = Field(description="Mean over rows of the row's maximum difference.")

    @property
    def figures(self) -> dict[str, float]:
        """The comparison as a job's metrics, which are numbers."""
        figures = {
            "rows_compared": float(self.rows),
            "max_difference": self.max_difference,
            "mean_difference": self.mean_difference,
        }
        if self.labels_changed is not None:
            figures["labels_changed"] = float(self.labels_changed)
        return figures

    @classmethod
    def of_figures(cls, figures: dict[str, float], split: str) -> Self:
        """Return the comparison that `figures` was made of."""
        changed = figures.get("labels_changed")
        return cls(
            rows=int(figures["rows_compared"]),
            split=split,
            labels_changed=None if changed is None else int(changed),
            max_difference=figures["max_difference"],
            mean_difference=figures["mean_difference"],
        )


def merged_path(merge: str, name: str = "") -> str:
    """Return the path of a merged model's file among those of its run."""
    return f"{MERGED_FOLDER}/{merge}/{name}"


def merged_folder(path: str) -> str | None:
    """Return the folder of the merged model that a run's file belongs to; None for other files."""
    folder, _, below = path.partition("/")
    merge, slash, _ = below.partition("/")
    return merged_path(merge) if folder == MERGED_FOLDER and slash else None
