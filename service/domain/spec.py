"""The run specification: its sections, frozen, unknown fields refused.

Field names are those of PEFT, bitsandbytes and transformers. The defaults of the fields are the
preset `default` as published; a preset and then the user's own fields override them. A value that
the software does not support is refused by a validator that says so, never ignored.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from service.domain.section import Section, Steps, refuse
from service.domain.training_spec import LoraSection, QuantizationSection, TrainingSection

_PART = "[A-Za-z0-9][A-Za-z0-9_.-]*"
MODEL_NAME = re.compile(f"{_PART}(/{_PART})?")
"""A base model: one or two components as in the hub's repository names. None can start with a dot,
so that neither an absolute path nor one with ``..`` matches."""


class Cap(Section):
    """A release limit: the group's error rate must be provably below `max`."""

    group: str = Field(
        min_length=1, max_length=200, description="Group, as in the dataset's group column."
    )
    metric: Literal["fpr", "fnr"] = Field(
        "fpr", description="Error rate: false positive rate or false negative rate."
    )
    max: float = Field(
        ge=0,
        le=1,
        description="The cap passes if the rate's upper confidence limit is below this.",
    )


class FairnessSection(Section):
    """Release criteria, and how the report judges them."""

    positive_label: str = Field(
        "hate", min_length=1, max_length=200, description="Label that counts as positive."
    )
    caps: list[Cap] = Field(
        [],
        max_length=200,
        description="Release limits on groups' error rates, at most one for each group and metric. "
        "Omitted in a request: those of the preset; []: none.",
    )
    min_f1: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Minimum overall F1 for a release; null: none. Omitted in a request: that of "
        "the preset.",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Confidence level of intervals and verdicts."
    )
    min_support: Steps = Field(
        30,
        ge=1,
        description="Groups with fewer negatives (FPR) or positives (FNR) are flagged as small in "
        "the report.",
    )
    select: Literal["best_metric", "best_f1_within_caps"] = Field(
        "best_metric",
        description="Checkpoint used by load_best_model_at_end: the one with the lowest eval_loss, "
        "or the one with the highest F1 among those that satisfy every cap and min_f1 on the "
        "validation split, by point estimates.",
    )

    @field_validator("caps")
    @classmethod
    def _unique_caps(cls, value: list[Cap]) -> list[Cap]:
        rates = [(cap.group, cap.metric) for cap in value]
        if len(set(rates)) != len(rates):
            raise refuse("a group has two caps on the same metric")
        return value


Split = Literal["train", "validation", "test"]


class EvaluationSection(Section):
    """Evaluation of the chosen checkpoint, and of the base model, for the report."""

    splits: list[Split] = Field(
        ["test"],
        min_length=1,
        max_length=3,
        description="Splits scored after training, each once.",
        json_schema_extra={"uniqueItems": True},
    )
    baseline: bool = Field(True, description="Score the base model too, before training.")
    baseline_template: str | None = Field(
        None, description="Template under which the base model is scored; null: the run's."
    )
    threshold: Literal["argmax", "fitted"] = Field(
        "argmax",
        description="argmax: predict the most probable label. fitted: predict the positive label "
        "from the score that gave the highest F1 within the caps on the validation split.",
    )

    @field_validator("splits")
    @classmethod
    def _unique_splits(cls, value: list[Split]) -> list[Split]:
        if len(set(value)) != len(value):
            raise refuse("a split is listed twice")
        return value


class ResourcesSection(Section):
    """Hardware that the run uses."""

    num_processes: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that train together on one machine, each on its own GPU if there "
        "are GPUs. The effective batch size is proportional to it.",
    )


Tag = Annotated[str, Field(min_length=1, max_length=100)]


class _Fields(Section):
    name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Name for people; null: composed of preset and base model.",
    )
    preset: str = Field(
        "default", description="Preset whose values the request overrides; see GET /v1/presets."
    )
    base_model: str = Field(
        "openai/gpt-oss-20b",
        min_length=1,
        max_length=200,
        description="Hub id, or name of a directory below the models directory.",
    )
    dataset_id: str = Field(description="Dataset to train and evaluate on.")
    template: str = Field(
        "hate_speech_simple", description="Prompt template; see GET /v1/templates."
    )
    seed: int = Field(
        42, ge=0, lt=2**31, description="Seed of initialization, shuffling, dropout and sampling."
    )
    tags: list[Tag] = Field(
        [], max_length=50, description="Free labels by which runs can be listed."
    )
    lora: LoraSection = Field(
        LoraSection(),  # type: ignore[call-arg]  # the defaults fill it
        description="Low-rank adapters.",
    )
    quantization: QuantizationSection = Field(
        QuantizationSection(),  # type: ignore[call-arg]  # as above
        description="4-bit weights of the base model.",
    )
    training: TrainingSection = Field(
        TrainingSection(),  # type: ignore[call-arg]  # as above
        description="Optimization, batches and checkpoints.",
    )
    fairness: FairnessSection = Field(
        FairnessSection(),  # type: ignore[call-arg]  # as above
        description="Release criteria.",
    )
    evaluation: EvaluationSection = Field(
        EvaluationSection(),  # type: ignore[call-arg]  # as above
        description="Scoring after training, for the report.",
    )
    resources: ResourcesSection = Field(
        ResourcesSection(),  # type: ignore[call-arg]  # as above
        description="Hardware.",
    )


class RunSpec(_Fields):
    """Specification of a run.

    In a request, omitted fields take the value of the preset, and if that has none, the default
    shown here; GET /v1/presets lists the values of the presets. In an answer, every field has its
    final value.
    """

    @property
    def effective_batch_size(self) -> int:
        """Rows per optimizer step of all processes together."""
        return self.training.effective_batch_size * self.resources.num_processes


# Setting one of a pair removes the inherited value of the other.
_EITHER_OR = {
    "training": (("num_train_epochs", "max_steps"), ("warmup_steps", "warmup_ratio")),
}


def overlay(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` merged into it, section by section; neither is modified.

    A list replaces the whole list. If a change sets one of an either-or pair alone, the other
    becomes null, so that ``max_steps`` takes effect over a preset's ``num_train_epochs``.
    """
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key, {}), dict):
            section = dict(base.get(key, {}))
            for pair in _EITHER_OR.get(key, ()):
                if sum(value.get(name) is not None for name in pair) == 1:
                    section.update(dict.fromkeys(pair))
            merged[key] = section | value
        else:
            merged[key] = value
    return merged
