"""Updates that an adapter makes to its base model's weights, by the weights' names."""

import sys
from typing import Any, NamedTuple

import torch

from worker.modeling.lora_targets import is_stored_transposed


class LowRank(NamedTuple):
    """W + s B A (Hu et al. 2021, arXiv:2106.09685), in float32 as peft (0.21) computes it.

    With DoRA (arXiv:2402.09353) each row is scaled to its learned length.
    """

    a: torch.Tensor
    """(rank, in)"""
    b: torch.Tensor
    """(out, rank)"""
    scaling: float
    magnitude: torch.Tensor | None
    """(out); None without DoRA."""
    is_transposed: bool = False
    """True if the weight is stored as (in, out), as transformers' Conv1D of GPT-2 has it."""

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.b.shape[0], self.a.shape[1]
        return shape[::-1] if self.is_transposed else shape

    def apply(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the merged weight, rounded once to `dtype`; `weight` is not changed."""
        if self.is_transposed:
            return self._replace(is_transposed=False).apply(weight.t(), dtype).t().contiguous()
        merged = torch.addmm(weight.float(), self.b, self.a, alpha=self.scaling)
        if self.magnitude is None:
            return merged.to(dtype)
        merged *= (self.magnitude / torch.linalg.vector_norm(merged, dim=1))[:, None]
        return merged.to(dtype)


class Stacked(NamedTuple):
    """W[e] + s L[e] R[e] for each expert e, for weights (experts, rows, columns)."""

    left: torch.Tensor
    right: torch.Tensor
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.left.shape[0], self.left.shape[1], self.right.shape[2]

    def apply(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the merged weight, rounded once to `dtype`; one expert at a time is in float32."""
        merged = torch.empty_like(weight, dtype=dtype)
        for expert, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            merged[expert] = torch.addmm(weight[expert].float(), left, right, alpha=self.scaling)
        return merged


class Replaced(NamedTuple):
    """A bias that was trained directly."""

    value: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def apply(self, _weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self.value.to(dtype)


def updates_of(model: Any) -> dict[str, LowRank | Stacked | Replaced]:
    """Return the updates by the base model's weight names. `model` is a PeftModel with one adapter.

    The tensors are copies in float32 on the CPU, so the model can be released.
    """
    from peft.tuners.lora import LoraLayer, ParamWrapper

    updates: dict[str, LowRank | Stacked | Replaced] = {}
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        name = base_name(path)
        if not isinstance(module, ParamWrapper):
            updates[f"{name}.weight"] = _low_rank(module)
        elif module.num_experts == 1:
            updates[f"{name}.{module.parameter_name}"] = _low_rank(module)
        else:
            left, right, scaling = module.get_delta_factors("default")
            stacked = Stacked(_copy(left), _copy(right), float(scaling))
            updates[f"{name}.{module.parameter_name}"] = stacked
    for path, parameter in model.named_parameters():
        if parameter.requires_grad and path.endswith("bias"):
            updates[base_name(path)] = Replaced(_copy(parameter))
    return updates


def _low_rank(module: Any) -> LowRank:
    magnitudes = module.lora_magnitude_vector
    return LowRank(
        a=_copy(module.lora_A["default"].weight),
        b=_copy(module.lora_B["default"].weight),
        scaling=float(module.scaling["default"]),
        magnitude=_copy(magnitudes["default"].weight) if "default" in magnitudes else None,
        is_transposed=is_stored_transposed(module.get_base_layer()),
    )


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def base_name(path: str) -> str:
    """Return the base model's name for a name in peft's model, which wraps model and layers."""
    return path.removeprefix("base_model.model.").replace(".base_layer", "")


def names_in_4bit(model: Any) -> set[str]:
    """Return the base model's names of the weights that the model holds in 4 bits."""
    bnb = sys.modules.get("bitsandbytes")
    if bnb is None:  # never imported, so no layer can be one of its classes
        return set()
    modules: Any = model.named_modules()
    return {
        f"{base_name(path)}.weight"
        for path, module in modules
        if isinstance(module, bnb.nn.Linear4bit)
    }


def transposed_names(model: Any) -> set[str]:
    """Return the base model's names of the weights that its files hold as (in, out)."""
    return {
        f"{base_name(path)}.weight"
        for path, module in model.named_modules()
        if is_stored_transposed(module)
    }
