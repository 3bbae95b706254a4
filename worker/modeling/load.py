"""Loading a base model, in 4 bits where asked for, and putting a LoRA adapter on it."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.domain.errors import ProgramFailure
from service.domain.spec import LoraSection, QuantizationSection, RunSpec
from service.domain.states import FailureReason
from worker.modeling.lora_targets import check_targets
from worker.modeling.precision import without_bfloat16
from worker.modeling.quantization_coverage import Coverage
from worker.modeling.quantized_cache import QuantizedCache
from worker.runtime.disk_full import is_full

log = logging.getLogger("fairtune")


EAGER_UP_TO = 256
"""Tokens of max_seq_length up to which a CPU takes eager attention: torch's fused one is slow there
in the backward pass under a padding mask, and the score matrices that it saves are still small."""


@dataclass(frozen=True, slots=True)
class Base:
    model: Any
    tokenizer: Any
    coverage: Coverage
    """What of it is held in 4 bits."""
    in_float32: bool = False
    """Whether it computes in float32, for want of bfloat16, although that was asked for."""


def load_base(
    directory: Path, spec: RunSpec, device: torch.device, kept: Path | None = None
) -> Base:
    """Load the model in `directory` for training on `device`, its own weights frozen.

    `kept` is where quantized weights may be kept from one run to the next.

    Raises ProgramFailure: model_unavailable for files that make no model, invalid_spec for a
    sequence length beyond the model's positions, or for 4-bit weights of which none came to be.
    """
    from transformers import AutoConfig, AutoTokenizer

    name = spec.base_model
    instead = without_bfloat16(spec, device)
    spec = instead or spec
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        _check_positions(config, spec)
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = _load_weights(directory, config, spec, device, kept)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if is_full(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ProgramFailure(
            FailureReason.MODEL_UNAVAILABLE, f"{name} cannot be loaded: {reason}"
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ProgramFailure(
            FailureReason.MODEL_UNAVAILABLE, f"{name} has no tokenizer.json (a fast tokenizer)."
        )
    model.requires_grad_(requires_grad=False)
    # The last columns of the hidden states are a view with gaps, for which torch's matmul copies
    # the whole output matrix once per row of the batch: two thirds of all time on the CPU.
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _layer, inputs: (inputs[0].clone(memory_format=torch.contiguous_format),)
    )
    coverage = Coverage.of(model)
    if spec.quantization.load_in_4bit and not coverage.in_4bit.parameters:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"quantization.load_in_4bit: no layer of {name} can be held in 4 bits; turn it off.",
        )
    return Base(model, tokenizer, coverage, in_float32=instead is not None)


def _check_positions(config: Any, spec: RunSpec) -> None:
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if most is not None and spec.training.max_seq_length > most:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"training.max_seq_length is {spec.training.max_seq_length}, but {spec.base_model} has "
            f"{most} positions.",
        )


def _load_weights(
    directory: Path, config: Any, spec: RunSpec, device: torch.device, kept: Path | None
) -> Any:
    stored = getattr(config, "quantization_config", None) or {}
    method = stored.get("quant_method") if isinstance(stored, dict) else stored.quant_method
    section = spec.quantization
    if method == "mxfp4":
        from transformers import Mxfp4Config

        # Said outright: transformers would choose by what GPU and kernels it finds.
        model = _read(directory, spec, device, Mxfp4Config(dequantize=True))
        if section.load_in_4bit:
            quantize_linears(model, section, device)
        return model
    if not section.load_in_4bit:
        return _read(directory, spec, device)
    # Where it was measured to pay (docs/performance.md); what comes quantized stays as it is.
    cache = None
    if kept is not None and device.type == "cpu" and method is None:
        settings = section.model_dump() | {"bf16": spec.training.bf16}
        cache = QuantizedCache.of(kept, directory, settings)
    if cache is not None:
        model = cache.load(lambda entry: _read(entry, spec, device))
        if model is not None:
            return model
    model = _read(directory, spec, device, _bnb_config(section))
    if cache is not None:
        cache.store(model)
    return model


def _read(directory: Path, spec: RunSpec, device: torch.device, quantization: Any = None) -> Any:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {}
    if quantization is not None:
        options["quantization_config"] = quantization
    if device.type == "cpu" and spec.training.max_seq_length <= EAGER_UP_TO:
        options["attn_implementation"] = "eager"
    model, info = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.bfloat16 if spec.training.bf16 else torch.float32,
        device_map={"": device},
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    if missing := sorted(info["missing_keys"]):
        # transformers fills them with random numbers and goes on.
        raise ValueError(f"its files lack {len(missing)} weights, {missing[0]} for one")
    return model


def _bnb_config(section: QuantizationSection) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=getattr(torch, section.bnb_4bit_compute_dtype),
        bnb_4bit_use_double_quant=section.bnb_4bit_use_double_quant,
    )


def quantize_linears(model: nn.Module, section: QuantizationSection, device: torch.device) -> None:
    """Hold the linear layers of a loaded model in 4 bits, the output layer excepted.

    For checkpoints that come in another quantization, which from_pretrained cannot replace.
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
    """Put a fresh LoRA adapter on `model`; the same seed gives the same adapter.

    Adapter weights are float32 whatever the base is. Raises ProgramFailure(invalid_spec).
    """
    from peft import LoraConfig, TaskType, get_peft_model

    check_targets(model, lora, base_model)
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(
            model,
            LoraConfig(
                task_type=TaskType.CAUSAL_LM,
                r=lora.r,
                lora_alpha=lora.lora_alpha,
                lora_dropout=lora.lora_dropout,
                target_modules=lora.target_modules,
                target_parameters=list(lora.target_parameters) or None,
                bias=lora.bias,
                use_rslora=lora.use_rslora,
                use_dora=lora.use_dora,
            ),
        )
    except ValueError as error:
        raise ProgramFailure(FailureReason.INVALID_SPEC, f"lora: {error}") from error
    # Not the directory on this machine: the adapter is for whoever has the base model.
    adapted.peft_config["default"].base_model_name_or_path = base_model
    return adapted


def set_training(model: nn.Module, *, training: bool) -> None:
    """Like model.train(training), but 4-bit layers stay in training mode.

    In evaluation mode bitsandbytes (0.50, CPUs with AVX512-BF16) repacks a layer's weights for
    inference at the first forward, rounds their scales to bfloat16 and gives no gradients ever
    after. The layers have no dropout, so the mode means nothing else to them.
    """
    model.train(training)
    bnb = sys.modules.get("bitsandbytes")
    if bnb is None:  # nobody has asked for it, so no layer can be its
        return
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.training = True
