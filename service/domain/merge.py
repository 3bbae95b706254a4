"""Merged models: what may be asked for, what was made of that, and what a comparison found."""

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
_SIZE = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,3}})?)\s*({'|'.join(_UNITS)})", re.IGNORECASE)
LEAST_SHARD = 10**6
"""Bytes. A large model in smaller files would be thousands of them."""
MOST_SHARD = 10**12


class MergeRequest(BaseModel):
    """What POST /v1/runs/{id}/merged takes. What is left out is the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    checkpoint: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Step of the checkpoint; null: the run's adapter."
    )
    dtype: MergedDtype = Field(
        "bfloat16",
        description="What the weights are rounded to. What the base model's files keep in float32 "
        "beside 16-bit weights stays so.",
    )
    max_shard_size: str = Field(
        "5GB",
        description="Largest weight file, as transformers writes it: 500MB, 5GB, 2GiB. A single "
        "weight that is larger has a file of its own.",
    )
    base_weights: BaseWeights = Field(
        "original",
        description="original: the base model's own weights. dequantized: what they are after a "
        "way through 4 bits, which is what the training saw; for runs with load_in_4bit alone.",
    )

    @field_validator("max_shard_size")
    @classmethod
    def _a_size(cls, value: str) -> str:
        if not LEAST_SHARD <= (_bytes(value) or 0) <= MOST_SHARD:
            raise PydanticCustomError(
                "size", "give a size from 1MB to 1000GB, such as 500MB, 5GB or 2GiB"
            )
        return value

    @property
    def max_shard_bytes(self) -> int:
        found = _bytes(self.max_shard_size)
        assert found is not None
        return found


def _bytes(size: str) -> int | None:
    """KB, MB and GB are powers of ten, as for transformers; None for what is no size."""
    found = _SIZE.fullmatch(size.strip())
    return None if found is None else int(float(found[1]) * _UNITS[found[2].upper()])


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
    """The merged model against the adapter on its base model, as the run scored with it, row by
    row on the same sample.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    rows: int
    split: str
    labels_changed: int | None = Field(
        description="Rows that the two call differently by argmax; null: the run has no labels."
    )
    max_difference: float = Field(
        description="Largest difference in a label's probability; without labels, in the mean "
        "log-likelihood of the answer's tokens, in nats."
    )
    mean_difference: float = Field(description="Of the rows' largest differences, the mean.")

    @property
    def figures(self) -> dict[str, float]:
        """As a job's metrics, which are numbers."""
        found = {
            "rows_compared": float(self.rows),
            "max_difference": self.max_difference,
            "mean_difference": self.mean_difference,
        }
        if self.labels_changed is not None:
            found["labels_changed"] = float(self.labels_changed)
        return found

    @classmethod
    def of_figures(cls, figures: dict[str, float], split: str) -> Self:
        """The inverse."""
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
