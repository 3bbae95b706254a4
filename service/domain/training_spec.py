"""Sections of a run specification about training: adapters, quantization, optimization."""

from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.config import JsonDict, JsonValue

from service.domain.section import Section, Steps, refuse, refused, together
from service.domain.storable import NOT_EMPTY

Strategy = Literal["epoch", "steps", "no"]
Dtype = Literal["bfloat16", "float16", "float32"]

_NULL: JsonDict = {"type": "null"}
_NUMBER: JsonDict = {"type": "number"}


def _add_name_rules(schema: dict[str, Any]) -> None:
    """Add to the schema of a list that its names are not blank, and that each is listed once."""
    schema["items"] = schema.get("items", {}) | {"pattern": NOT_EMPTY}
    schema["uniqueItems"] = True


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(
        json_schema_extra=refused(
            together(
                {"target_parameters": {"minItems": 1}, "lora_dropout": {"exclusiveMinimum": 0}}
            ),
            together({"target_parameters": {"minItems": 1}, "use_dora": {"const": True}}),
            together(
                {
                    "target_parameters": {"maxItems": 0},
                    "target_modules": {"type": "array", "maxItems": 0},
                }
            ),
        )
    )

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
        "experts of mixture-of-experts models: mlp.experts.gate_up_proj. Requires lora_dropout 0 "
        "and use_dora false.",
        json_schema_extra=_add_name_rules,
    )
    target_modules: list[str] | Literal["all-linear"] = Field(
        ["q_proj", "v_proj"],
        description="Names of the layers that get an adapter, or all-linear. May be empty only if "
        "target_parameters is not.",
        json_schema_extra=_add_name_rules,
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
            raise refuse("the name of a parameter is empty")
        if len(set(value)) != len(value):
            raise refuse("a parameter is listed twice")
        return value

    @field_validator("target_modules")
    @classmethod
    def _check_modules(cls, value: list[str] | str, info: ValidationInfo) -> list[str] | str:
        if isinstance(value, list):
            # Missing if target_parameters is itself invalid: then only that error is reported.
            parameters = info.data.get("target_parameters", [])
            if (not value and not parameters) or any(not name.strip() for name in value):
                raise refuse("list at least one module, or use all-linear")
            if len(set(value)) != len(value):
                raise refuse("a module is listed twice")
        return value

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        # The update is added to the weight itself, not to a layer's output, so there is no adapter
        # input to apply dropout to. peft (0.21) refuses both.
        if self.target_parameters and self.lora_dropout:
            raise refuse(
                "target_parameters are adapted without dropout, and peft has one lora_dropout for "
                f"the whole adapter: set lora_dropout to 0 (it is {self.lora_dropout:g})"
            )
        if self.target_parameters and self.use_dora:
            raise refuse("target_parameters cannot be adapted with use_dora")
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


def _strategy_and_steps(kind: str) -> tuple[JsonDict, JsonDict]:
    """Return the combinations of a strategy and its interval that are refused."""
    strategy, steps = f"{kind}_strategy", f"{kind}_steps"
    return (
        together({strategy: {"const": "steps"}, steps: _NULL}),
        together({strategy: {"enum": ["epoch", "no"]}, steps: _NUMBER}),
    )


def _saved_otherwise(eval_strategy: str) -> JsonDict:
    """Return the combination that has no checkpoint at each evaluation, as the best model needs."""
    strategies: list[JsonValue] = [name for name in get_args(Strategy) if name != eval_strategy]
    return together(
        {
            "load_best_model_at_end": {"const": True},
            "eval_strategy": {"const": eval_strategy},
            "save_strategy": {"enum": strategies},
        }
    )


class TrainingSection(Section):
    """Optimization, batches, evaluation during training, and checkpoints.

    load_best_model_at_end requires a checkpoint at each evaluation: save_strategy and save_steps
    with the values of eval_strategy and eval_steps, unless eval_strategy is no.
    """

    model_config = ConfigDict(
        json_schema_extra=refused(
            together({"num_train_epochs": _NUMBER, "max_steps": _NUMBER}),
            together({"num_train_epochs": _NULL, "max_steps": _NULL}),
            together({"warmup_steps": _NUMBER, "warmup_ratio": _NUMBER}),
            *_strategy_and_steps("eval"),
            *_strategy_and_steps("save"),
            together({"eval_strategy": {"const": "no"}, "early_stopping_patience": {"minimum": 1}}),
            _saved_otherwise("epoch"),
            _saved_otherwise("steps"),
        )
    )

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
        2,
        ge=0,
        description="Evaluations without improvement after which training stops; 0: off, as "
        "eval_strategy no requires.",
    )
    early_stopping_threshold: float = Field(
        0.01, ge=0, description="Minimum absolute decrease of the loss that counts as improvement."
    )
    logging_steps: Steps = Field(
        10, ge=1, description="Optimizer steps between two records of the training metrics."
    )
    eval_strategy: Strategy = Field("epoch", description="When to evaluate during training.")
    eval_steps: Steps | None = Field(
        None,
        ge=1,
        description="Optimizer steps between evaluations; required with eval_strategy steps, and "
        "refused with others.",
    )
    save_strategy: Strategy = Field("epoch", description="When to write a checkpoint.")
    save_steps: Steps | None = Field(
        None,
        ge=1,
        description="Optimizer steps between checkpoints; required with save_strategy steps, and "
        "refused with others.",
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
        False,
        description="Must be false: a lower eval_loss is better.",
        json_schema_extra={"const": False},
    )
    dataloader_num_workers: int = Field(
        0,
        ge=0,
        description="Must be 0: rows are tokenized before training.",
        json_schema_extra={"maximum": 0},
    )

    @field_validator("dataloader_num_workers")
    @classmethod
    def _no_loader_processes(cls, value: int) -> int:
        if value:
            raise refuse(
                "rows are tokenized before training, so loader processes have no use: set 0"
            )
        return value

    @field_validator("greater_is_better")
    @classmethod
    def _lower_is_better(cls, value: bool) -> bool:
        if value:
            raise refuse("the best model is chosen by eval_loss, where lower is better: set false")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.num_train_epochs is None) == (self.max_steps is None):
            raise refuse("set exactly one of num_train_epochs and max_steps")
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise refuse("set at most one of warmup_steps and warmup_ratio")
        for kind in ("eval", "save"):
            strategy = getattr(self, f"{kind}_strategy")
            steps = getattr(self, f"{kind}_steps")
            if strategy == "steps" and steps is None:
                raise refuse(f"{kind}_strategy steps requires {kind}_steps")
            if strategy != "steps" and steps is not None:
                raise refuse(f"{kind}_steps requires {kind}_strategy steps")
        if self.eval_strategy == "no" and self.early_stopping_patience:
            raise refuse("early stopping requires evaluations: set early_stopping_patience to 0")
        if self.load_best_model_at_end and self.eval_strategy != "no":
            evaluates = (self.eval_strategy, self.eval_steps)
            if evaluates != (self.save_strategy, self.save_steps):
                raise refuse(
                    "load_best_model_at_end requires a checkpoint at each evaluation: set "
                    "save_strategy and save_steps to the values of eval_strategy and eval_steps, "
                    "or load_best_model_at_end to false"
                )
        return self

    @property
    def effective_batch_size(self) -> int:
        """Rows per optimizer step of one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps
