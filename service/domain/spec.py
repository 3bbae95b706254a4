"""The run specification: its sections, frozen, unknown fields refused.

Field names are those of PEFT, bitsandbytes and transformers. The defaults of the fields are the
preset `default` as published; a preset and then the user's own fields override them. What the
software cannot honour yet is refused by a validator that says so, never ignored.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""A base model: one or two components as the hub names repositories. None can start with a dot, so
that neither an absolute path nor one with ``..`` gets through."""

# Counts of steps: far beyond any run, and within what every database's integer holds.
Steps = Annotated[int, Field(le=10_000_000)]

Strategy = Literal["epoch", "steps", "no"]
Dtype = Literal["bfloat16", "float16", "float32"]


def _refuse(detail: str) -> PydanticCustomError:
    """A validation error with exactly this text ('{' in it is not a placeholder)."""
    return PydanticCustomError("not_possible", "{detail}", {"detail": detail})


class Section(BaseModel):
    # Strict: "8" is no number and true is not 1. An integer is taken for a float all the same.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = Field(32, ge=1, le=1024, description="Rank of the update matrices.")
    lora_alpha: int = Field(32, ge=1, le=8192, description="The update is scaled by alpha / r.")
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    target_parameters: list[str] = Field(
        [],
        max_length=100,
        description="Weights that get an adapter and are no linear layers, as the experts of "
        "mixture-of-experts models: mlp.experts.gate_up_proj. Needs lora_dropout 0.",
    )
    target_modules: list[str] | Literal["all-linear"] = Field(
        ["q_proj", "v_proj"],
        description="Names of the layers that get an adapter, or all-linear. Empty only where "
        "target_parameters are named.",
    )
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r), arXiv:2312.03732.")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA, arXiv:2402.09353.")

    @field_validator("target_parameters")
    @classmethod
    def _named_once(cls, value: list[str]) -> list[str]:
        if any(not name.strip() for name in value):
            raise _refuse("a parameter has no name")
        if len(set(value)) != len(value):
            raise _refuse("a parameter is named twice")
        return value

    @field_validator("target_modules")
    @classmethod
    def _some_modules(cls, value: list[str] | str, info: ValidationInfo) -> list[str] | str:
        if isinstance(value, list):
            # Declared before it, or not valid itself; then that is what is said.
            parameters = info.data.get("target_parameters", [])
            if (not value and not parameters) or any(not name.strip() for name in value):
                raise _refuse("name at least one module, or say all-linear")
            if len(set(value)) != len(value):
                raise _refuse("a module is named twice")
        return value

    @model_validator(mode="after")
    def _parameters_take_no_more(self) -> Self:
        # The update is added to the weight itself, not to a layer's output: there is no input of
        # the adapter to drop from. peft (0.21) refuses both.
        if self.target_parameters and self.lora_dropout:
            raise _refuse(
                "target_parameters are adapted without dropout, and peft has one lora_dropout for "
                f"all of an adapter: set lora_dropout to 0 (it is {self.lora_dropout:g})"
            )
        if self.target_parameters and self.use_dora:
            raise _refuse("target_parameters cannot be adapted with use_dora")
        return self


class QuantizationSection(Section):
    """4-bit base weights through bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

    load_in_4bit: bool = True
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_compute_dtype: Dtype = "bfloat16"
    bnb_4bit_use_double_quant: bool = True


class TrainingSection(Section):
    learning_rate: float = Field(2e-4, gt=0, le=1)
    num_train_epochs: float | None = Field(
        3, gt=0, le=1000, description="Exactly one of num_train_epochs and max_steps is set."
    )
    max_steps: Steps | None = Field(None, ge=1, description="Optimizer steps, instead of epochs.")
    per_device_train_batch_size: int = Field(4, ge=1, le=4096)
    per_device_eval_batch_size: int = Field(4, ge=1, le=4096)
    gradient_accumulation_steps: int = Field(4, ge=1, le=4096)
    warmup_steps: Steps | None = Field(
        100, ge=0, description="At most one of warmup_steps and warmup_ratio is set."
    )
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    max_grad_norm: float = Field(1.0, ge=0, description="Clip to this norm; 0 does not clip.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    optim: Literal["adamw_torch"] = "adamw_torch"
    max_seq_length: int = Field(512, ge=16, le=131072, description="Tokens of prompt and label.")
    bf16: bool = Field(True, description="Train in bfloat16; false trains in float32.")
    gradient_checkpointing: bool = True
    train_on: Literal["completion", "all"] = "completion"
    packing: Literal["shared_prefix", "none"] = Field(
        "shared_prefix",
        description="shared_prefix: what prompts have in common is computed once per micro-batch, "
        "which holds at most per_device_train_batch_size x max_seq_length tokens. none: rows are "
        "padded to the longest of their micro-batch.",
    )
    early_stopping_patience: Steps = Field(
        2, ge=0, description="Evaluations without improvement before training ends; 0 = off."
    )
    early_stopping_threshold: float = Field(
        0.01, ge=0, description="An improvement is a change by more than this, absolute."
    )
    logging_steps: Steps = Field(10, ge=1)
    eval_strategy: Strategy = "epoch"
    eval_steps: Steps | None = Field(None, ge=1)
    save_strategy: Strategy = "epoch"
    save_steps: Steps | None = Field(None, ge=1)
    save_total_limit: Steps = Field(3, ge=1, description="Checkpoints kept; the best always is.")
    load_best_model_at_end: bool = True
    metric_for_best_model: Literal["eval_loss"] = "eval_loss"
    greater_is_better: bool = False
    dataloader_num_workers: int = Field(0, ge=0)

    @field_validator("dataloader_num_workers")
    @classmethod
    def _rows_are_in_memory(cls, value: int) -> int:
        if value:
            raise _refuse("rows are tokenised before training, so loader processes do nothing; 0")
        return value

    @field_validator("greater_is_better")
    @classmethod
    def _loss_falls(cls, value: bool) -> bool:
        if value:
            raise _refuse("the best model is chosen by eval_loss, where less is better; use false")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.num_train_epochs is None) == (self.max_steps is None):
            raise _refuse("set exactly one of num_train_epochs and max_steps")
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise _refuse("set at most one of warmup_steps and warmup_ratio")
        for kind in ("eval", "save"):
            strategy = getattr(self, f"{kind}_strategy")
            steps = getattr(self, f"{kind}_steps")
            if strategy == "steps" and steps is None:
                raise _refuse(f"{kind}_strategy steps needs {kind}_steps")
            if strategy != "steps" and steps is not None:
                raise _refuse(f"{kind}_steps needs {kind}_strategy steps")
        if self.eval_strategy == "no" and self.early_stopping_patience:
            raise _refuse("early stopping needs evaluations: set early_stopping_patience to 0")
        if self.load_best_model_at_end and self.eval_strategy != "no":
            same = (self.eval_strategy, self.eval_steps) == (self.save_strategy, self.save_steps)
            if not same:
                raise _refuse(
                    "load_best_model_at_end needs a checkpoint at each evaluation: give "
                    "save_strategy and save_steps the values of eval_strategy and eval_steps, or "
                    "set load_best_model_at_end to false"
                )
        return self

    @property
    def effective_batch_size(self) -> int:
        """Samples per optimizer step of one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


class Cap(Section):
    """A release limit: the rate of this group must be provably under `max`."""

    group: str = Field(min_length=1, max_length=200)
    metric: Literal["fpr", "fnr"] = "fpr"
    max: float = Field(ge=0, le=1)


class FairnessSection(Section):
    positive_label: str = Field("hate", min_length=1, max_length=200)
    caps: list[Cap] = Field([], max_length=200)
    min_f1: float | None = Field(None, ge=0, le=1, description="Least F1 for a release.")
    confidence: float = Field(0.95, gt=0.5, lt=1)
    min_support: Steps = Field(30, ge=1, description="Groups with fewer rows are marked as small.")
    select: Literal["best_metric", "best_f1_within_caps"] = Field(
        "best_metric",
        description="Which checkpoint load_best_model_at_end takes: the one with the lowest "
        "eval_loss, or the one with the best F1 among those that hold every cap and min_f1 on the "
        "validation split, by point estimates.",
    )

    @field_validator("caps")
    @classmethod
    def _one_cap_each(cls, value: list[Cap]) -> list[Cap]:
        seen = [(cap.group, cap.metric) for cap in value]
        if len(set(seen)) != len(seen):
            raise _refuse("a group has two caps on the same metric")
        return value


Split = Literal["train", "validation", "test"]


class EvaluationSection(Section):
    splits: list[Split] = Field(
        ["test"], min_length=1, max_length=3, description="Splits scored at the end."
    )
    baseline: bool = Field(True, description="Score the base model too, before training.")
    baseline_template: str | None = Field(
        None, description="Another template for the base model's score."
    )
    threshold: Literal["argmax", "fitted"] = Field(
        "argmax",
        description="argmax: the most probable label. fitted: positive from the score on that gave "
        "the best F1 within the caps on the validation split.",
    )

    @field_validator("splits")
    @classmethod
    def _once_each(cls, value: list[Split]) -> list[Split]:
        if len(set(value)) != len(value):
            raise _refuse("a split is named twice")
        return value


class ResourcesSection(Section):
    num_processes: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that train the run together, on one machine, each on a GPU of its "
        "own where there are any. The effective batch grows with them.",
    )


Tag = Annotated[str, Field(min_length=1, max_length=100)]


class _Fields(Section):
    name: str | None = Field(None, min_length=1, max_length=200)
    preset: str = Field("default", description="GET /v1/presets lists them.")
    base_model: str = Field(
        "openai/gpt-oss-20b",
        min_length=1,
        max_length=200,
        description="A hub id, or the name of a directory below the models directory.",
    )
    dataset_id: str
    template: str = Field("hate_speech_simple", description="GET /v1/templates lists them.")
    seed: int = Field(42, ge=0, lt=2**31)
    tags: list[Tag] = Field([], max_length=50)
    lora: LoraSection = LoraSection()  # type: ignore[call-arg]  # the defaults fill it
    quantization: QuantizationSection = QuantizationSection()
    training: TrainingSection = TrainingSection()  # type: ignore[call-arg]  # as above
    fairness: FairnessSection = FairnessSection()  # type: ignore[call-arg]  # as above
    evaluation: EvaluationSection = EvaluationSection()  # type: ignore[call-arg]  # as above
    resources: ResourcesSection = ResourcesSection()  # type: ignore[call-arg]  # as above


class RunSpec(_Fields):
    """A resolved specification: every field has its final value."""

    @property
    def effective_batch_size(self) -> int:
        """Samples per optimizer step of all processes together."""
        return self.training.effective_batch_size * self.resources.num_processes


# Setting one of a pair takes the other's inherited value away.
_EITHER_OR = {
    "training": (("num_train_epochs", "max_steps"), ("warmup_steps", "warmup_ratio")),
}


def overlay(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, section by section; neither is altered.

    A list replaces the list below it. Where a change sets one of an either-or pair alone, the
    other becomes null, so that ``max_steps`` over a preset's ``num_train_epochs`` means itself.
    """
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key, {}), dict):
            section = dict(base.get(key, {}))
            for pair in _EITHER_OR.get(key, ()):
                given = [name for name in pair if value.get(name) is not None]
                if len(given) == 1:
                    section.update(dict.fromkeys(pair))
            merged[key] = section | value
        else:
            merged[key] = value
    return merged
