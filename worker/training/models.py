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
from worker.programs.space import is_full

log = logging.getLogger("fairtune")


EAGER_UP_TO = 256
"""Tokens of max_seq_length up to which a CPU takes eager attention: torch's fused one is slow there
in the backward pass under a padding mask, and the score matrices that it saves are still small."""


@dataclass(frozen=True, slots=True)
class Base:
    model: Any
    tokenizer: Any
    quantized_share: float
    """Parameters held in 4 bits / all parameters."""
    left_out: list[str]
    """Matrices that 4-bit was asked for and did not reach, embeddings and output layer apart."""


def load_base(directory: Path, spec: RunSpec, device: torch.device) -> Base:
    """Load the model in `directory` for training on `device`, its own weights frozen.

    Raises ProgramFailure: model_unavailable for files that make no model, invalid_spec for a
    sequence length beyond the model's positions, or for 4-bit weights of which none came to be.
    """
    from transformers import AutoConfig, AutoTokenizer

    name = spec.base_model
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        _check_positions(config, spec)
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = _load_weights(directory, config, spec, device)
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
    share, left_out = quantized_share(model)
    if spec.quantization.load_in_4bit and not share:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"quantization.load_in_4bit: no layer of {name} can be held in 4 bits; turn it off.",
        )
    return Base(model, tokenizer, share, left_out if spec.quantization.load_in_4bit else [])


def _check_positions(config: Any, spec: RunSpec) -> None:
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if most is not None and spec.training.max_seq_length > most:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"training.max_seq_length is {spec.training.max_seq_length}, but {spec.base_model} has "
            f"{most} positions.",
        )


def _load_weights(directory: Path, config: Any, spec: RunSpec, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    stored = getattr(config, "quantization_config", None) or {}
    method = stored.get("quant_method") if isinstance(stored, dict) else stored.quant_method
    options: dict[str, Any] = {}
    if method == "mxfp4":
        from transformers import Mxfp4Config

        # Said outright: transformers would choose by what GPU and kernels it finds.
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    elif spec.quantization.load_in_4bit:
        options["quantization_config"] = _bnb_config(spec.quantization)
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
    if method == "mxfp4" and spec.quantization.load_in_4bit:
        quantize_linears(model, spec.quantization, device)
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


def quantized_share(model: Any) -> tuple[float, list[str]]:
    """The share of parameters held in 4 bits, and the matrices that are not.

    Embeddings and the output layer never are and are not listed; they do count in the share.
    """
    bnb = sys.modules.get("bitsandbytes")  # None: no layer can be its
    outer = {id(model.get_input_embeddings().weight)}
    if (head := model.get_output_embeddings()) is not None:
        outer.add(id(head.weight))
    held = total = 0
    left_out = []
    for name, parameter in model.named_parameters():
        if bnb is not None and isinstance(parameter, bnb.nn.Params4bit):
            # Two values a byte: the packed tensor is not the weight's shape.
            count = parameter.quant_state.shape.numel()
            held += count
        else:
            count = parameter.numel()
            if parameter.dim() >= 2 and id(parameter) not in outer:
                left_out.append(name)
        total += count
    return held / total, left_out


def linear_names(model: nn.Module) -> list[str]:
    """Last parts of the names of the linear layers, 4-bit ones too, the output layer's not."""
    head = model.get_output_embeddings()  # type: ignore[operator]  # of transformers
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
    )


def check_targets(model: nn.Module, lora: LoraSection, base_model: str) -> None:
    """Raise ProgramFailure(invalid_spec) for a target module that the model lacks.

    peft itself takes one match of several names for success.
    """
    names = linear_names(model)
    for target in [] if lora.target_modules == "all-linear" else lora.target_modules:
        if target.rpartition(".")[2] not in names:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"lora.target_modules: {base_model} has no linear layer named {target!r}; it "
                f"has {', '.join(names)}.",
            )


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
