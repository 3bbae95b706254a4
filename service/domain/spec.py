"""The run specification: its sections, frozen, unknown fields refused.

Field names are those of PEFT, bitsandbytes and transformers. The defaults of the fields are the
preset `default` as published; a preset and then the user's own fields override them. A value that
the software does not support is refused by a validator that says so, never ignored.
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
"""A base model: one or two components as in the hub's repository names. None can start with a dot,
so that neither an absolute path nor one with ``..`` matches."""

# Counts of steps: far beyond any run, and within the range of every database's integer.
Steps = Annotated[int, Field(le=10_000_000)]

Strategy = Literal["epoch", "steps", "no"]
Dtype = Literal["bfloat16", "float16", "float32"]


def _refuse(detail: str) -> PydanticCustomError:
    """Return a validation error with exactly this text ('{' in it is not a placeholder)."""
    return PydanticCustomError("not_possible", "{detail}", {"detail": detail})


class Section(BaseModel):
    # Strict: "8" is no number and true is not 1. An integer is still accepted as a float.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = Field(32, ge=1, le=1024, description="Rank of the update matrices.")
    lora_alpha: int = Field(
        32, ge=1, le=8192, description="Scale of the update: it is multiplied by lora_alpha / r."
    )
    lora_dropout: float = Field(
        0.05, ge=0, lt=1, description="Dropout probability on the adapters' input."
    )
    target_parameters: list[str] = Field(
        [],
        max_length=100,
        description="Names of weights outside linear layers that get an adapter, such as the "
        "experts of mixture-of-experts models: mlp.experts.gate_up_proj. Requires lora_dropout 0.",
    )
    target_modules: list[str] | Literal["all-linear"] = Field(
        ["q_proj", "v_proj"],
        description="Names of the layers that get an adapter, or all-linear. May be empty only if "
        "target_parameters is not.",
    )
    bias: Literal["none", "all", "lora_only"] = Field(
        "none", description="Bias parameters to train: none, all, or those of adapted layers."
    )
    use_rslora: bool = Field(
        False, description="Scale the update by lora_alpha / sqrt(r) instead (arXiv:2312.03732)."
    )
    use_dora: bool = Field(False, description="Use weight-decomposed LoRA (arXiv:2402.09353).")

    @field_validator("target_parameters")
    @classmethod
    def _unique_parameters(cls, value: list[str]) -> list[str]:
        if any(not name.strip() for name in value):
            raise _refuse("the name of a parameter is empty")
        if len(set(value)) != len(value):
            raise _refuse("a parameter is listed twice")
        return value

    @field_validator("target_modules")
    @classmethod
    def _check_modules(cls, value: list[str] | str, info: ValidationInfo) -> list[str] | str:
        if isinstance(value, list):
            # Missing if target_parameters is itself invalid: then only that error is reported.
            parameters = info.data.get("target_parameters", [])
            if (not value and not parameters) or any(not name.strip() for name in value):
                raise _refuse("list at least one module, or use all-linear")
            if len(set(value)) != len(value):
                raise _refuse("a module is listed twice")
        return value

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        # The update is added to the weight itself, not to a layer's output, so there is no adapter
        # input to apply dropout to. peft (0.21) refuses both.
        if self.target_parameters and self.lora_dropout:
            raise _refuse(
                "target_parameters are adapted without dropout, and peft has one lora_dropout for "
                f"the whole adapter: set lora_dropout to 0 (it is {self.lora_dropout:g})"
            )
        if self.target_parameters and self.use_dora:
            raise _refuse("target_parameters cannot be adapted with use_dora")
        return self


class QuantizationSection(Section):
    """4-bit base weights through bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

    load_in_4bit: bool = Field(True, description="Load the base model's linear layers in 4 bits.")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(
        "nf4", description="4-bit data type: NormalFloat or floating point."
    )
    bnb_4bit_compute_dtype: Dtype = Field(
        "bfloat16", description="Data type that weights are dequantized to for computation."
    )
    bnb_4bit_use_double_quant: bool = Field(
        True, description="Quantize the quantization constants too, saving about 0.4 bits a weight."
    )


class TrainingSection(Section):
    """Optimization, batches, evaluation during training, and checkpoints."""

    learning_rate: float = Field(
        2e-4, gt=0, le=1, description="Peak learning rate, reached at the end of the warm-up."
    )
    num_train_epochs: float | None = Field(
        3,
        gt=0,
        le=1000,
        description="Passes over the training rows. Set exactly one of num_train_epochs and "
        "max_steps.",
    )
    max_steps: Steps | None = Field(
        None, ge=1, description="Optimizer steps, instead of num_train_epochs."
    )
    per_device_train_batch_size: int = Field(
        4, ge=1, le=4096, description="Rows per process in one forward and backward pass."
    )
    per_device_eval_batch_size: int = Field(
        4, ge=1, le=4096, description="Rows per process in one forward pass of an evaluation."
    )
    gradient_accumulation_steps: int = Field(
        4, ge=1, le=4096, description="Micro-batches per optimizer step."
    )
    warmup_steps: Steps | None = Field(
        100,
        ge=0,
        description="Optimizer steps of learning-rate warm-up. Set at most one of warmup_steps and "
        "warmup_ratio.",
    )
    warmup_ratio: float | None = Field(
        None, ge=0, lt=1, description="Warm-up as a fraction of all steps, instead of warmup_steps."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(
        1.0,
        ge=0,
        description="Maximum gradient norm; larger gradients are clipped. 0: no clipping.",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Learning-rate schedule after the warm-up."
    )
    optim: Literal["adamw_torch"] = Field("adamw_torch", description="Optimizer.")
    max_seq_length: int = Field(
        512,
        ge=16,
        le=131072,
        description="Maximum tokens of prompt and completion; longer texts are truncated.",
    )
    bf16: bool = Field(True, description="Train in bfloat16; false trains in float32.")
    gradient_checkpointing: bool = Field(
        True, description="Recompute activations in the backward pass to save memory."
    )
    train_on: Literal["completion", "all"] = Field(
        "completion", description="Tokens in the loss: the completion only, or the prompt too."
    )
    packing: Literal["shared_prefix", "none"] = Field(
        "shared_prefix",
        description="shared_prefix: the prompts' common prefix is computed once per micro-batch of "
        "at most per_device_train_batch_size x max_seq_length tokens. none: rows are padded to the "
        "longest of their micro-batch.",
    )
    early_stopping_patience: Steps = Field(
        2, ge=0, description="Evaluations without improvement after which training stops; 0: off."
    )
    early_stopping_threshold: float = Field(
        0.01, ge=0, description="Minimum absolute decrease of the loss that counts as improvement."
    )
    logging_steps: Steps = Field(
        10, ge=1, description="Optimizer steps between two records of the training metrics."
    )
    eval_strategy: Strategy = Field("epoch", description="When to evaluate during training.")
    eval_steps: Steps | None = Field(
        None, ge=1, description="Optimizer steps between evaluations, with eval_strategy steps."
    )
    save_strategy: Strategy = Field("epoch", description="When to write a checkpoint.")
    save_steps: Steps | None = Field(
        None, ge=1, description="Optimizer steps between checkpoints, with save_strategy steps."
    )
    save_total_limit: Steps = Field(
        3, ge=1, description="Maximum number of checkpoints kept; the best one is always kept."
    )
    load_best_model_at_end: bool = Field(
        True, description="Use the best checkpoint as the adapter instead of the last one."
    )
    metric_for_best_model: Literal["eval_loss"] = Field(
        "eval_loss", description="Metric by which checkpoints are compared."
    )
    greater_is_better: bool = Field(
        False, description="Must be false: a lower eval_loss is better."
    )
    dataloader_num_workers: int = Field(
        0, ge=0, description="Must be 0: rows are tokenized before training."
    )

    @field_validator("dataloader_num_workers")
    @classmethod
    def _no_loader_processes(cls, value: int) -> int:
        if value:
            raise _refuse(
                "rows are tokenized before training, so loader processes have no use: set 0"
            )
        return value

    @field_validator("greater_is_better")
    @classmethod
    def _lower_is_better(cls, value: bool) -> bool:
        if value:
            raise _refuse("the best model is chosen by eval_loss, where lower is better: set false")
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
                raise _refuse(f"{kind}_strategy steps requires {kind}_steps")
            if strategy != "steps" and steps is not None:
                raise _refuse(f"{kind}_steps requires {kind}_strategy steps")
        if self.eval_strategy == "no" and self.early_stopping_patience:
            raise _refuse("early stopping requires evaluations: set early_stopping_patience to 0")
        if self.load_best_model_at_end and self.eval_strategy != "no":
            evaluates = (self.eval_strategy, self.eval_steps)
            if evaluates != (self.save_strategy, self.save_steps):
                raise _refuse(
                    "load_best_model_at_end requires a checkpoint at each evaluation: set "
                    "save_strategy and save_steps to the values of eval_strategy and eval_steps, "
                    "or load_best_model_at_end to false"
                )
        return self

    @property
    def effective_batch_size(self) -> int:
        """Rows per optimizer step of one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


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
        [], max_length=200, description="Release limits on groups' error rates."
    )
    min_f1: float | None = Field(
        None, ge=0, le=1, description="Minimum overall F1 for a release; null: none."
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Confidence level of intervals and verdicts."
    )
    min_support: Steps = Field(
        30, ge=1, description="Groups with fewer rows are flagged as small in the report."
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
            raise _refuse("a group has two caps on the same metric")
        return value


Split = Literal["train", "validation", "test"]


class EvaluationSection(Section):
    """Evaluation of the chosen checkpoint, and of the base model, for the report."""

    splits: list[Split] = Field(
        ["test"], min_length=1, max_length=3, description="Splits scored after training."
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
            raise _refuse("a split is listed twice")
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
    """A resolved specification: every field has its final value."""

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
