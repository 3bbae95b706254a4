"""The keys of the scripts and of transformers' TrainingArguments that have no counterpart.

A key that would change the trained weights or the written files is honoured or refused; a key about
how the scripts' own process works has no effect and is accepted.
"""

from typing import Any, NamedTuple

NO_EFFECT = frozenset(
    {
        "accelerator_config",
        "activation_checkpointing_kwargs",
        "auto_find_batch_size",
        "average_tokens_across_devices",
        "batch_eval_metrics",
        "cache_dir",
        "debug",
        "disable_tqdm",
        "do_eval",
        "do_predict",
        "do_train",
        "enable_jit_checkpoint",
        "eval_accumulation_steps",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "fp16_backend",
        "fp16_opt_level",
        "full_determinism",
        "gradient_checkpointing_kwargs",
        "half_precision_backend",
        "ignore_data_skip",
        "include_for_metrics",
        "include_inputs_for_metrics",
        "include_num_input_tokens_seen",
        "include_tokens_per_second",
        "jit_mode_eval",
        "label_names",
        "length_column_name",
        "local_rank",
        "log_on_each_node",
        "logging_first_step",
        "logging_nan_inf_filter",
        "no_cuda",
        "overwrite_cache",
        "past_index",
        "prediction_loss_only",
        "preprocessing_num_workers",
        "project",
        "ray_scope",
        "remove_unused_columns",
        "restore_callback_states_from_checkpoint",
        "save_on_each_node",
        "save_only_model",
        "save_safetensors",
        "skip_memory_metrics",
        "tf32",
        "torch_empty_cache_steps",
        "tpu_metrics_debug",
        "tpu_num_cores",
        "use_cache",
        "use_cpu",
        "use_fast_tokenizer",
        "use_legacy_prediction_loop",
        "use_mps_device",
    }
)
NO_EFFECT_PREFIXES = (
    "dataloader_",
    "ddp_",
    "hub_",
    "log_level",
    "torch_compile",
    "trackio_",
)


class Fixed(NamedTuple):
    """A key that Fairtune can honour with some values only."""

    values: tuple[Any, ...]
    """Accepted values; with each the key changes nothing."""
    reason: str
    """A clause that names the remedy."""


_ATTENTION = Fixed((False,), "the worker chooses the attention kernel: remove it")
_ADAMW = "AdamW's own value is fixed: remove it"

FIXED: dict[str, Fixed] = {
    "activation_offloading": Fixed((False,), "activations stay on the device: remove it"),
    "adafactor": Fixed((False,), "the optimizer is adamw_torch: remove it"),
    "adam_beta1": Fixed((0.9,), _ADAMW),
    "adam_beta2": Fixed((0.999,), _ADAMW),
    "adam_epsilon": Fixed((1e-8,), _ADAMW),
    "attn_implementation": Fixed(("eager", "sdpa"), _ATTENTION.reason),
    "bf16_full_eval": Fixed((False,), "evaluations compute as training does: remove it"),
    "data_seed": Fixed((), "seed determines the order of the rows, too: remove it"),
    "deepspeed": Fixed(("",), "processes train by data parallelism alone: use num_processes"),
    "eval_delay": Fixed((0,), "evaluations start with the first one: remove it"),
    "eval_on_start": Fixed((False,), "the base model is scored before training anyway: remove it"),
    "fp16": Fixed((False,), "training in float16 is not supported: use bf16, or bf16 false"),
    "fp16_full_eval": Fixed((False,), "evaluations compute as training does: remove it"),
    "fsdp": Fixed(("", False), "processes train by data parallelism alone: use num_processes"),
    "fsdp_config": Fixed((), "processes train by data parallelism alone: use num_processes"),
    "group_by_length": Fixed((False,), "rows are shuffled by the seed alone: remove it"),
    "label_smoothing_factor": Fixed((0,), "the loss is the cross entropy: remove it"),
    "liger_kernel_config": Fixed((), "the worker chooses its kernels: remove it"),
    "load_in_8bit": Fixed((False,), "8-bit weights are not supported: use load_in_4bit"),
    "logging_strategy": Fixed(("steps",), "metrics are recorded by logging_steps: remove it"),
    "lora_fan_in_fan_out": Fixed((False,), "it follows from the model's layers: remove it"),
    "lora_modules_to_save": Fixed(("", []), "whole layers cannot be trained: remove it"),
    "lora_task_type": Fixed(("CAUSAL_LM",), "classifiers are causal language models: remove it"),
    "lr_scheduler_kwargs": Fixed(("", {}), "schedules have no further parameters: remove it"),
    "model_revision": Fixed(("main",), "the server takes a model's main revision: remove it"),
    "mp_parameters": Fixed(("",), "there is no model parallelism: remove it"),
    "neftune_noise_alpha": Fixed((0,), "embeddings get no noise: remove it"),
    "optim_args": Fixed(("",), "AdamW has no further parameters: remove it"),
    "optim_target_modules": Fixed(("",), "AdamW trains every adapter alike: remove it"),
    "parallelism_config": Fixed((), "processes train by data parallelism alone: use num_processes"),
    "push_to_hub": Fixed((False,), "nothing is uploaded: afterwards use hf upload, and remove it"),
    "sharded_ddp": Fixed(("", False), "processes train by data parallelism alone: remove it"),
    "torch_dtype": Fixed(("auto", "bfloat16"), "bf16 chooses the number format: remove it"),
    "torchdynamo": Fixed(("",), "models are not compiled: remove it"),
    "train_sampling_strategy": Fixed(("random",), "rows are shuffled by the seed: remove it"),
    "trust_remote_code": Fixed((False,), "code of a model is never executed: remove it"),
    "use_flash_attention": _ATTENTION,
    "use_flash_attention_2": _ATTENTION,
    "use_flash_attn": _ATTENTION,
    "use_ipex": Fixed((False,), "the worker chooses its kernels: remove it"),
    "use_liger_kernel": Fixed((False,), "the worker chooses its kernels: remove it"),
    "use_peft": Fixed((True,), "every run trains an adapter: remove it"),
}
"""Keys that are accepted with these values, or null, and refused with any other."""

FOREIGN_SECTIONS = frozenset(
    {"lora", "quantization", "training", "fairness", "evaluation", "resources", "base_model"}
)
"""Fields of Fairtune's own specification, which is another file."""


def has_no_effect(name: str) -> bool:
    """Return True if the key concerns only the process of the scripts."""
    return name in NO_EFFECT or (name not in FIXED and name.startswith(NO_EFFECT_PREFIXES))


def is_accepted(name: str, value: Any) -> bool:
    """Return True if the value of a fixed key changes nothing. A flag's text counts as its value.

    >>> is_accepted("fp16", "False"), is_accepted("fp16", True), is_accepted("adam_beta1", "0.9")
    (True, False, True)
    """
    return value is None or any(_is_same(value, item) for item in FIXED[name].values)


def _is_same(value: Any, item: Any) -> bool:
    if isinstance(item, bool):
        words = ("true", "yes", "1") if item else ("false", "no", "0")
        return value is item or (isinstance(value, str) and value.lower() in words)
    if isinstance(value, bool):
        return False
    if isinstance(item, int | float):
        try:
            return float(value) == item
        except (TypeError, ValueError):
            return False
    return bool(value == item)
