"""What of a model an adapter can be put on, by name, and whether a specification names that."""

import re
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from service.domain.errors import ProgramFailure
from service.domain.spec import LoraSection
from service.domain.states import FailureReason

_LAYER = re.compile(r"^.*\.\d+\.")


def linear_names(model: Any) -> list[str]:
    """Last parts of the names of the linear layers, 4-bit ones too, the output layer's not."""
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
    )


def parameter_names(model: Any) -> list[str]:
    """Full names of the weights that peft can adapt as parameters and not as layers.

    Matrices, and stacks of one for each expert, of modules that are neither linear layers (they are
    named as such, and 4-bit ones are packed) nor embeddings nor convolutions.
    """
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if not isinstance(module, nn.Linear | nn.Embedding | _ConvNd)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() in (2, 3) and parameter.is_floating_point() and not name.endswith("bias")
    ]


def check_targets(model: Any, lora: LoraSection, base_model: str) -> None:
    """Raise ProgramFailure(invalid_spec) for a target that the model lacks, naming what it has.

    peft itself takes one match of several names for success, and wraps whatever has the name.
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
    possible = parameter_names(model)
    every = [name for name, _ in model.named_parameters()]
    # Below the layer's number, which a name may leave out: peft matches the ends of names.
    shown = ", ".join(dict.fromkeys(_LAYER.sub("", name) for name in possible)) or "none"
    for target in targets:
        matched = [name for name in every if name == target or name.endswith(f".{target}")]
        if not matched:
            problem = f"{base_model} has no parameter named {target!r}"
        elif other := sorted(set(matched) - set(possible)):
            problem = (
                f"{target!r} names {other[0]} too, which is no matrix or that of a linear layer "
                "(lora.target_modules), an embedding or a convolution"
            )
        else:
            continue
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"lora.target_parameters: {problem}; to be had in {base_model}: {shown}.",
        )
