"""The keys of the scripts' flat configuration that `fairtune train` honours."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["flag", "whole", "number", "text", "list"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the configuration file, which is a flag of the command line, too."""

    name: str
    kind: Kind
    help: str
    section: str | None = None
    """Section of the run specification; None: the key is a field of the specification itself, or
    of the command alone."""
    field: str | None = None
    """Field of the section; None: the key is none of the specification."""
    aliases: tuple[str, ...] = ()


def _section(section: str, *keys: tuple[str, Kind, str]) -> list[Key]:
    return [Key(name, kind, text, section, name) for name, kind, text in keys]


FILE_KEYS = [
    Key(
        "model_name_or_path",
        "text",
        "Base model: Hub id, or name on the server.",
        None,
        "base_model",
    ),
    Key("train_file", "text", "Training rows: chats (messages), or labelled texts."),
    Key("validation_file", "text", "Validation rows.", aliases=("eval_file", "val_file")),
    Key("test_file", "text", "Labelled rows for the bias report; default: the validation rows."),
    Key("output_dir", "text", "Directory that receives adapter, checkpoints, logs and results."),
    Key("logging_dir", "text", "Directory for TensorBoard; default: logs in output_dir."),
    Key("report_to", "list", "tensorboard (default), or none: no files for TensorBoard."),
    Key(
        "overwrite_output_dir", "flag", "Start a new run although output_dir has an unfinished one."
    ),
    Key("resume_from_checkpoint", "flag", "Continue a failed run of output_dir, too."),
]
RUN_KEYS = [
    Key("run_name", "text", "Name of the run; default: the output directory's.", None, "name"),
    Key("seed", "whole", "Seed of everything random.", None, "seed"),
    Key(
        "template",
        "text",
        "Prompt template for labelled texts; chats have their own prompts.",
        None,
        "template",
    ),
    Key("positive_label", "text", "Label that counts as positive.", "fairness", "positive_label"),
    Key(
        "num_processes",
        "whole",
        "Processes (GPUs), as of accelerate launch.",
        "resources",
        "num_processes",
    ),
]
LORA_KEYS = [
    Key("lora_r", "whole", "Rank of the adapter.", "lora", "r", ("lora_rank",)),
    Key("lora_alpha", "whole", "Scale of the adapter.", "lora", "lora_alpha"),
    Key("lora_dropout", "number", "Dropout on the adapter's input.", "lora", "lora_dropout"),
    Key(
        "lora_target_modules",
        "list",
        "Adapted layers: q_proj,v_proj, or all-linear.",
        "lora",
        "target_modules",
        ("target_modules",),
    ),
    Key(
        "lora_target_parameters",
        "list",
        "Adapted weights outside linear layers.",
        "lora",
        "target_parameters",
        ("target_parameters",),
    ),
    Key("lora_bias", "text", "Trained biases: none, all, lora_only.", "lora", "bias"),
    Key(
        "use_rslora",
        "flag",
        "Scale by lora_alpha / sqrt(r).",
        "lora",
        "use_rslora",
        ("lora_use_rslora",),
    ),
    Key("use_dora", "flag", "Weight-decomposed LoRA.", "lora", "use_dora", ("lora_use_dora",)),
]
QUANTIZATION_KEYS = _section(
    "quantization",
    ("load_in_4bit", "flag", "4-bit weights of the base model (QLoRA)."),
    ("bnb_4bit_quant_type", "text", "nf4 or fp4."),
    ("bnb_4bit_compute_dtype", "text", "bfloat16, float16 or float32."),
    ("bnb_4bit_use_double_quant", "flag", "Quantize the quantization constants, too."),
)
TRAINING_KEYS = _section(
    "training",
    ("learning_rate", "number", "Peak learning rate."),
    ("num_train_epochs", "number", "Passes over the training rows."),
    ("max_steps", "whole", "Optimizer steps, instead of epochs; -1: not set."),
    ("per_device_train_batch_size", "whole", "Rows per process and forward pass."),
    ("per_device_eval_batch_size", "whole", "The same for evaluations."),
    ("gradient_accumulation_steps", "whole", "Micro-batches per optimizer step."),
    ("warmup_steps", "number", "Warm-up steps; below 1: share of all steps."),
    ("warmup_ratio", "number", "Warm-up as a share of all steps."),
    ("weight_decay", "number", "Weight decay of AdamW."),
    ("max_grad_norm", "number", "Gradient clipping; 0: none."),
    ("lr_scheduler_type", "text", "linear, cosine, constant or constant_with_warmup."),
    ("optim", "text", "adamw_torch."),
    ("max_seq_length", "whole", "Maximum tokens of prompt and answer."),
    ("bf16", "flag", "Train in bfloat16; false: in float32."),
    ("gradient_checkpointing", "flag", "Save memory by recomputing activations."),
    ("train_on", "text", "completion: learn the answer only; all: the prompt, too."),
    ("packing", "text", "shared_prefix or none."),
    ("early_stopping_patience", "whole", "Evaluations without improvement until the end; 0: off."),
    ("early_stopping_threshold", "number", "Minimum decrease that counts as improvement."),
    ("logging_steps", "whole", "Steps between two records of the metrics."),
    ("eval_strategy", "text", "epoch, steps or no."),
    ("eval_steps", "whole", "Steps between evaluations, with eval_strategy steps."),
    ("save_strategy", "text", "epoch, steps or no."),
    ("save_steps", "whole", "Steps between checkpoints, with save_strategy steps."),
    ("save_total_limit", "whole", "Maximum number of checkpoints; null or 0: all."),
    ("load_best_model_at_end", "flag", "Take the best checkpoint as the adapter."),
    ("metric_for_best_model", "text", "eval_loss."),
    ("greater_is_better", "flag", "false: a lower eval_loss is better."),
)

GROUPS: dict[str, list[Key]] = {
    "Files": FILE_KEYS,
    "Run": RUN_KEYS,
    "LoRA": LORA_KEYS,
    "Quantization": QUANTIZATION_KEYS,
    "Training": TRAINING_KEYS,
}
ALIASES = {
    "activation_checkpointing": "gradient_checkpointing",
    "evaluation_strategy": "eval_strategy",
    "max_length": "max_seq_length",
}
"""Names of the same setting in other versions of transformers and of the script."""
KEYS: dict[str, Key] = {key.name: key for keys in GROUPS.values() for key in keys}
CANONICAL: dict[str, str] = (
    {name: name for name in KEYS}
    | {alias: key.name for key in KEYS.values() for alias in key.aliases}
    | ALIASES
)
"""Every accepted spelling, with underscores -> the key's name."""
FILE_OF_PART = {"train": "train_file", "validation": "validation_file", "test": "test_file"}


def key_of_pointer(pointer: str) -> str:
    """Return the key for a JSON pointer into a specification or an upload, else the pointer."""
    parts = pointer.strip("/").split("/")
    if parts[0] in FILE_OF_PART:
        return " ".join([FILE_OF_PART[parts[0]], *parts[1:]])
    for key in KEYS.values():
        path = [part for part in (key.section, key.field) if part is not None]
        if key.field is not None and parts[: len(path)] == path:
            return key.name
    return pointer
