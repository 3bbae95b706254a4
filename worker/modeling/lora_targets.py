"""Names of the layers and parameters that a LoRA adapter can target, and the check of a spec."""

import re
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from service.domain.training_spec import LoraSection

_LAYER = re.compile(r"^.*\.\d+\.")


def is_stored_transposed(module: Any) -> bool:
    """Return True for a linear layer whose weight is stored as (in, out).

    That is transformers' Conv1D, of GPT-2 and OpenAI GPT, and a layer quantized from one.
    """
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D) or getattr(module, "source_cls", None) is Conv1D


def is_linear(module: Any) -> bool:
    """Return True for a layer that multiplies by one matrix, however it stores it."""
    if isinstance(module, nn.Linear) or is_stored_transposed(module):
        return True
    # Layers of other quantizations are classes of their own.
    sizes = (getattr(module, name, None) for name in ("in_features", "out_features"))
    return not list(module.children()) and all(isinstance(size, int) for size in sizes)


def linear_names(model: Any) -> list[str]:
    """Return the last name parts of all linear layers, 4-bit ones included, except the head."""
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if is_linear(module) and module is not head
        }
    )


def parameter_names(model: Any) -> list[str]:
    """Return the full names of the weights that peft can adapt as parameters, not as layers.

    Those are matrices, and stacks of one matrix per expert, of modules other than linear layers
    (which are targeted as layers; 4-bit ones are packed), embeddings and convolutions.
    """
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if not (is_linear(module) or isinstance(module, nn.Embedding | _ConvNd))
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() in (2, 3) and parameter.is_floating_point() and not name.endswith("bias")
    ]


def check_targets(model: Any, lora: LoraSection, base_model: str) -> None:
    """Raise ProgramFailure(invalid_spec) for a target that the model lacks, listing what it has.

    peft itself succeeds as soon as one of several names matches, and wraps any module of that name.
    """
    names = linear_names(model)
    for target in [] if lora.target_modules == "all-linear" else lora.target_modules:
        if target.rpartition(".")[2] not in names:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"lora.target_modules: {base_model} has no linear layer named {target!r}; it "
                f"has {', '.join(names)}.",
            )
    if lora.target_parameters:
        _check_parameters(model, lora.target_parameters, base_model)


def _check_parameters(model: Any, targets: list[str], base_model: str) -> None:
    adaptable = parameter_names(model)
    all_names = [name for name, _ in model.named_parameters()]
    # Without the layer's number, which a target may omit: peft matches suffixes of names.
    available = ", ".join(dict.fromkeys(_LAYER.sub("", name) for name in adaptable)) or "none"
    for target in targets:
        matched = [name for name in all_names if name == target or name.endswith(f".{target}")]
        if not matched:
            problem = f"{base_model} has no parameter named {target!r}"
        elif unsupported := sorted(set(matched) - set(adaptable)):
            problem = (
                f"{target!r} also matches {unsupported[0]}, which is not a matrix, or belongs to a "
                "linear layer (use lora.target_modules), an embedding or a convolution"
            )
        else:
            continue
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"lora.target_parameters: {problem}; {base_model} offers: {available}.",
        )
