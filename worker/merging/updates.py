"""What an adapter adds to its base model's weights, by the names of these."""

import sys
from typing import Any, NamedTuple

import torch


class LowRank(NamedTuple):
    """W + s B A (Hu et al. 2021), of DoRA each row scaled to its learned length (arXiv:2402.09353).

    As peft (0.21) computes them, in float32.
    """

    a: torch.Tensor
    """(rank, in)"""
    b: torch.Tensor
    """(out, rank)"""
    scaling: float
    magnitude: torch.Tensor | None
    """(out); None without DoRA."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.b.shape[0], self.a.shape[1]

    def applied(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Rounded once, to `dtype`; `weight` (out, in) stays as it is."""
        whole = torch.addmm(weight.float(), self.b, self.a, alpha=self.scaling)
        if self.magnitude is None:
            return whole.to(dtype)
        whole *= (self.magnitude / torch.linalg.vector_norm(whole, dim=1))[:, None]
        return whole.to(dtype)


class Stacked(NamedTuple):
    """W[e] + s L[e] R[e] for each expert e, of weights that are a matrix for each."""

    left: torch.Tensor
    right: torch.Tensor
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.left.shape[0], self.left.shape[1], self.right.shape[2]

    def applied(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Rounded once, to `dtype`. One expert at a time is in float32."""
        whole = torch.empty_like(weight, dtype=dtype)
        for expert, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            whole[expert] = torch.addmm(weight[expert].float(), left, right, alpha=self.scaling)
        return whole


class Replaced(NamedTuple):
    """A bias that was trained itself."""

    value: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def applied(self, _weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self.value.to(dtype)


def updates_of(model: Any) -> dict[str, LowRank | Stacked | Replaced]:
    """By the base model's names of its weights. `model` is one of peft's, with one adapter.

    Copies, in float32 on the CPU: the model itself is not needed any more.
    """
    from peft.tuners.lora import LoraLayer, ParamWrapper

    found: dict[str, LowRank | Stacked | Replaced] = {}
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        name = base_name(path)
        if not isinstance(module, ParamWrapper):
            found[f"{name}.weight"] = _low_rank(module)
        elif module.num_experts == 1:
            found[f"{name}.{module.parameter_name}"] = _low_rank(module)
        else:
            left, right, scaling = module.get_delta_factors("default")
            stacked = Stacked(_copy(left), _copy(right), float(scaling))
            found[f"{name}.{module.parameter_name}"] = stacked
    for path, parameter in model.named_parameters():
        if parameter.requires_grad and path.endswith("bias"):
            found[base_name(path)] = Replaced(_copy(parameter))
    return found


def _low_rank(module: Any) -> LowRank:
    magnitudes = module.lora_magnitude_vector
    return LowRank(
        a=_copy(module.lora_A["default"].weight),
        b=_copy(module.lora_B["default"].weight),
        scaling=float(module.scaling["default"]),
        magnitude=_copy(magnitudes["default"].weight) if "default" in magnitudes else None,
    )


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def base_name(path: str) -> str:
    """A name in peft's model as it is in the base model: peft wraps the model and its layers."""
    return path.removeprefix("base_model.model.").replace(".base_layer", "")


def names_in_4bit(model: Any) -> set[str]:
    """The weights that the model holds in 4 bits, by the base model's names."""
    bnb = sys.modules.get("bitsandbytes")
    if bnb is None:  # nobody has asked for it, so no layer can be its
        return set()
    modules: Any = model.named_modules()
    return {
        f"{base_name(path)}.weight"
        for path, module in modules
        if isinstance(module, bnb.nn.Linear4bit)
    }
