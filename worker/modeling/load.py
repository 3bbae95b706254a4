"""Loading a base model, in 4 bits if so specified, and adding a LoRA adapter to it."""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.domain.adapter_config import AdapterConfig
from service.domain.errors import ProgramFailure
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from service.domain.training_spec import LoraSection, QuantizationSection
from worker.modeling.causality import check_causality
from worker.modeling.lora_targets import check_targets, is_stored_transposed
from worker.modeling.model_failures import (
    CONFIG,
    describe,
    is_of_machine,
    reading,
    unavailable,
)
from worker.modeling.precision import without_bfloat16
from worker.modeling.pretrained import quantization_method, read_config, read_model, read_tokenizer
from worker.modeling.quantization_coverage import Coverage
from worker.modeling.quantized_cache import QuantizedCache
from worker.modeling.tokenizer_checks import check_token_range

log = logging.getLogger("fairtune")


EAGER_MAX_LENGTH = 256
"""Largest max_seq_length, in tokens, for which a CPU uses eager attention: torch's fused attention
has a slow backward pass there under a padding mask, and the score matrices that eager attention
saves are still small."""


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base model, its weights frozen, and its tokenizer."""

    model: Any
    tokenizer: Any
    coverage: Coverage
    """The share of the model that is held in 4 bits."""
    in_float32: bool = False
    """True if it computes in float32 because this machine lacks the bfloat16 of the spec."""
    ignored_weights: list[str] = field(default_factory=list)
    """Names of weights in the model's files that its configuration has no place for."""


def load_base(
    directory: Path, spec: RunSpec, device: torch.device, quantized_cache_dir: Path | None = None
) -> Base:
    """Load the model in `directory` for training on `device`, its own weights frozen.

    `quantized_cache_dir` is the directory in which quantized weights are cached between runs.

    Raises ProgramFailure: model_unavailable if the files cannot be loaded as a model, invalid_spec
    if max_seq_length exceeds the model's positions, if load_in_4bit quantized no layer, or if the
    model is not causal.
    """
    name = spec.base_model
    fallback = without_bfloat16(spec, device)
    spec = fallback or spec
    config = read_config(directory, name)
    _check_positions(config, spec)
    tokenizer = read_tokenizer(directory, name)
    model, ignored_weights = _load_weights(directory, config, spec, device, quantized_cache_dir)
    with reading(name, CONFIG):
        embeddings = model.get_input_embeddings().weight
        head = model.get_output_embeddings()
    if head is None:
        raise unavailable(name, "it has no output layer over its vocabulary")
    check_token_range(tokenizer, len(embeddings), name)
    model.requires_grad_(requires_grad=False)
    # The last columns of the hidden states are a view with gaps, for which torch's matmul copies
    # the whole output matrix once per row of the batch: two thirds of all time on the CPU.
    head.register_forward_pre_hook(
        lambda _layer, inputs: (inputs[0].clone(memory_format=torch.contiguous_format),)
    )
    set_training(model, training=False)
    check_causality(model, name)
    coverage = Coverage.of(model)
    if spec.quantization.load_in_4bit and not coverage.in_4bit.parameters:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"quantization.load_in_4bit: no layer of {name} can be held in 4 bits; turn it off.",
        )
    return Base(model, tokenizer, coverage, fallback is not None, ignored_weights)


def _check_positions(config: Any, spec: RunSpec) -> None:
    max_positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if max_positions is None:
        return
    if not isinstance(max_positions, int) or max_positions < 1:
        raise unavailable(
            spec.base_model,
            f"config.json has a field max_position_embeddings that is no count: {max_positions!r}",
        )
    if spec.training.max_seq_length > max_positions:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"training.max_seq_length is {spec.training.max_seq_length}, but {spec.base_model} has "
            f"{max_positions} positions.",
        )


def _load_weights(
    directory: Path,
    config: Any,
    spec: RunSpec,
    device: torch.device,
    quantized_cache_dir: Path | None,
) -> tuple[Any, list[str]]:
    """Return the model and the names of weights that it ignores. Raises ProgramFailure."""
    method = quantization_method(config)
    section = spec.quantization
    if method == "mxfp4":
        from transformers import Mxfp4Config

        # Explicit, because transformers would choose by the GPU and the kernels that it finds.
        model, ignored = _read_model(directory, spec, device, Mxfp4Config(dequantize=True))
        if section.load_in_4bit:
            quantize_linears(model, section, device)
        return model, ignored
    if section.load_in_4bit and method not in (None, "bitsandbytes"):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"quantization.load_in_4bit: the weights of {spec.base_model} are quantized already "
            f"({method}). Set it to false, or use the model's unquantized weights.",
        )
    if not section.load_in_4bit or method is not None:
        return _read_model(directory, spec, device)
    # Only where caching was measured to pay off (benchmarks/results/profiling.md); checkpoints that
    # are quantized already stay as they are.
    cache = None
    if quantized_cache_dir is not None and device.type == "cpu":
        settings = section.model_dump() | {"bf16": spec.training.bf16}
        cache = QuantizedCache.of(quantized_cache_dir, directory, settings)
    if cache is not None:
        cached = cache.load(lambda entry: _read_model(entry, spec, device)[0])
        if cached is not None:
            return cached, []
    model, ignored = _read_model(directory, spec, device, _bnb_config(section))
    if cache is not None:
        cache.store(model)
    return model, ignored


def _read_model(
    directory: Path, spec: RunSpec, device: torch.device, quantization: Any = None
) -> tuple[Any, list[str]]:
    options: dict[str, Any] = {}
    if quantization is not None:
        options["quantization_config"] = quantization
    if device.type == "cpu" and spec.training.max_seq_length <= EAGER_MAX_LENGTH:
        options["attn_implementation"] = "eager"
    return read_model(
        directory,
        spec.base_model,
        dtype=torch.bfloat16 if spec.training.bf16 else torch.float32,
        device_map={"": device},
        **options,
    )


def _bnb_config(section: QuantizationSection) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=getattr(torch, section.bnb_4bit_compute_dtype),
        bnb_4bit_use_double_quant=section.bnb_4bit_use_double_quant,
    )


def quantize_linears(model: nn.Module, section: QuantizationSection, device: torch.device) -> None:
    """Quantize the linear layers of a loaded model to 4 bits, except the output layer.

    For checkpoints in another quantization, which from_pretrained cannot replace.
    """
    import bitsandbytes as bnb

    head = model.get_output_embeddings()  # type: ignore[operator]  # of transformers
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear or module is head:
            continue
        linear = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=getattr(torch, section.bnb_4bit_compute_dtype),
            compress_statistics=section.bnb_4bit_use_double_quant,
            quant_type=section.bnb_4bit_quant_type,
            device="meta",
        )
        linear.weight = bnb.nn.Params4bit(
            module.weight.data.cpu(),
            requires_grad=False,
            compress_statistics=section.bnb_4bit_use_double_quant,
            quant_type=section.bnb_4bit_quant_type,
        )
        linear.bias = module.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, linear.to(device))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks the model


def add_adapter(model: Any, lora: LoraSection, seed: int, base_model: str) -> Any:
    """Add a newly initialized LoRA adapter to `model`; equal seeds give equal adapters.

    Adapter weights are float32 whatever the base model's dtype. Raises
    ProgramFailure(invalid_spec) if the model lacks a target or peft rejects the section.
    """
    check_targets(model, lora, base_model)
    torch.manual_seed(seed)
    options = {
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": lora.target_modules,
        "target_parameters": list(lora.target_parameters) or None,
        "bias": lora.bias,
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
    }
    try:
        return _add_lora(model, options, base_model)
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise ProgramFailure(FailureReason.INVALID_SPEC, f"lora: {error}") from error


def add_configured_adapter(model: Any, config: AdapterConfig, base_model: str) -> Any:
    """Add a LoRA adapter as an adapter_config.json describes it; its weights are yet to be loaded.

    Raises ProgramFailure(invalid_spec) if the model has none of its layers, or peft rejects it.
    """
    try:
        return _add_lora(model, config.lora_options(), base_model)
    except Exception as error:
        # Patterns of names from elsewhere: whatever peft says of them is no fault of the machine.
        if is_of_machine(error):
            raise
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The adapter cannot be added to {base_model} ({describe(error)}). Import it again "
            "with the base model that it was trained on.",
        ) from error


def _add_lora(model: Any, options: dict[str, Any], base_model: str) -> Any:
    """Return `model` with an adapter by peft, which names the base model instead of a directory."""
    from peft import LoraConfig, TaskType, get_peft_model

    # Layers quantized from a Conv1D are transposed already.
    has_conv1d = any(
        is_stored_transposed(module) and not isinstance(module, nn.Linear)
        for module in model.modules()
    )
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, fan_in_fan_out=has_conv1d, **options)
    adapted = get_peft_model(model, config)
    # The name and not this machine's directory: the adapter is loaded on other machines as well.
    adapted.peft_config["default"].base_model_name_or_path = base_model
    return adapted


def set_training(model: nn.Module, *, training: bool) -> None:
    """Call model.train(training), but leave 4-bit layers in training mode.

    In evaluation mode bitsandbytes (0.50, CPUs with AVX512-BF16) repacks a layer's weights for
    inference at the first forward pass, rounds their scales to bfloat16 and gives no gradients from
    then on. The layers have no dropout, so the mode has no other effect on them.
    """
    model.train(training)
    bnb = sys.modules.get("bitsandbytes")
    if bnb is None:  # never imported, so no layer can be one of its classes
        return
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.training = True
