"""Layers that keep less for the backward pass, and take fewer passes over it.

What a forward pass keeps is most of a training's memory, and reading it again most of what is not
matrix products. Three layers keep several times what they need: RMSNorm and SwiGLU as transformers
writes them, since each elementary operation keeps its own operands, and LoRA as peft writes it,
which keeps the layer's input in float32 twice for each adapter. Here each is one autograd function
whose backward pass is written out. In 16 bits they may round at other places than the originals.

`make_lean` puts them into a model, each only where a trial gives what the layer gave before.
"""

from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu

_LEVELS = 2**16


def make_lean(model: nn.Module) -> dict[str, int]:
    """Replace what can be; return how many layers of each kind were."""
    counts = {"norm": 0, "mlp": 0, "lora": 0}
    for module in model.modules():
        for kind, fits, forward in (
            ("norm", _is_norm, _norm),
            ("mlp", _is_mlp, _mlp),
            ("lora", _is_lora, _lora),
        ):
            if fits(module):
                # Bound to the module, so that a copy of the model has its own.
                module.forward = MethodType(forward, module)
                counts[kind] += 1
    return counts


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return False
    return isinstance(weight, nn.Parameter) and not weight.requires_grad and _agree(module, weight)


def _norm(module: Any, given: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Norm.apply(given, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]  # of torch
    return out


def _is_mlp(module: nn.Module) -> bool:
    if not all(hasattr(module, f"{name}_proj") for name in ("gate", "up", "down")):
        return False
    # On stand-ins for its three matrices: bitsandbytes repacks 4-bit ones that are called where no
    # gradient is wanted, and they could not be trained any more.
    stub = SimpleNamespace(
        gate_proj=lambda x: 1.3 * x, up_proj=lambda x: x - 0.4, down_proj=lambda x: 2 * x
    )
    stub.act_fn, trial = getattr(module, "act_fn", None), torch.linspace(-4, 4, 64)
    try:
        found = type(module).forward(stub, trial)
    except (AttributeError, TypeError):  # it is made of more than these
        return False
    return torch.allclose(found, 2 * silu(1.3 * trial) * (trial - 0.4))


def _mlp(module: Any, given: torch.Tensor) -> torch.Tensor:
    gated = _SwiGlu.apply(module.gate_proj(given), module.up_proj(given))  # type: ignore[no-untyped-call]  # of torch
    out: torch.Tensor = module.down_proj(gated)
    return out


def _is_lora(module: nn.Module) -> bool:
    """Layers that peft adds B A x to, and nothing else: not those that wrap single parameters."""
    kind = type(module)
    if kind.__name__ not in {"Linear", "Linear4bit"} or not kind.__module__.startswith("peft."):
        return False
    adapted: Any = module
    names = list(adapted.lora_A)
    return (
        names == ["default"] == list(adapted.active_adapters)
        and not adapted.lora_variant
        and not adapted.lora_bias["default"]
    )


def _lora(module: Any, given: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
    plain = module.merged or module.disable_adapters or module.active_adapters != ["default"]
    if plain or others or named:
        out: torch.Tensor = type(module).forward(module, given, *others, **named)
        return out
    dropout = module.lora_dropout["default"]
    result: torch.Tensor = _Lora.apply(  # type: ignore[no-untyped-call]  # of torch
        module.base_layer(given),
        given,
        module.lora_A["default"].weight,
        module.lora_B["default"].weight,
        module.scaling["default"],
        dropout.p if module.training and isinstance(dropout, nn.Dropout) else 0.0,
    )
    return result


def _agree(norm: nn.Module, weight: torch.Tensor) -> bool:
    """Whether ours and its own are the same on random numbers, to the rounding of their type."""
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(4, len(weight), generator=generator).to(weight.device, weight.dtype)
    with torch.no_grad():
        own, ours = norm(given), _norm(norm, given)
    return own.dtype == ours.dtype and torch.allclose(own.float(), ours.float(), 1e-2, 1e-5)


class _Norm(torch.autograd.Function):
    """Root mean square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467), in float32."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = given.float()
        square = torch.linalg.vecdot(wide, wide).div_(given.shape[-1])
        factor = torch.rsqrt(square.add_(eps)).unsqueeze(-1)
        ctx.save_for_backward(given, weight, factor)
        return weight * (wide * factor).to(given.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        given, weight, factor = ctx.saved_tensors
        normed = given.float() * factor
        wide = (grad * weight).float()
        along = torch.linalg.vecdot(wide, normed).div_(given.shape[-1]).unsqueeze(-1)
        return wide.addcmul_(normed, along, value=-1).mul_(factor).to(given.dtype), None, None


class _SwiGlu(torch.autograd.Function):
    """silu(gate) * up (Shazeer 2020, arXiv:2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        gate, up = ctx.saved_tensors
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, silu(gate).mul_(grad)


class _Lora(torch.autograd.Function):
    """result + scaling * B A dropout(given), the adapter's part in the adapter's type.

    Dropout takes a number of 16 bits for each element, four from one draw of the generator: PyTorch
    draws 32 bits one after another, which is a tenth of a step on a CPU. The probability is rounded
    to a multiple of 2**-16 and what is left scaled by the rounded one, so that the expectation is
    exact.
    """

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        given: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        probability: float,
    ) -> torch.Tensor:
        dropped = round(probability * _LEVELS)
        kept = _kept(given, dropped) if dropped else None
        ctx.scaling, ctx.stretch = scaling, _LEVELS / (_LEVELS - dropped)
        left = given if kept is None else given * kept
        narrow = (left.to(a.dtype) @ a.t()).mul_(ctx.stretch)
        ctx.save_for_backward(given, kept, a, b, narrow)
        return (narrow @ b.t()).mul_(scaling).to(result.dtype).add_(result)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        given, kept, a, b, narrow = ctx.saved_tensors
        wide = grad.to(b.dtype).flatten(0, -2)
        grad_b = (wide.t() @ narrow.flatten(0, -2)).mul_(ctx.scaling)
        grad_narrow = (wide @ b).mul_(ctx.scaling * ctx.stretch)
        left = given if kept is None else given * kept
        grad_a = grad_narrow.t() @ left.to(a.dtype).flatten(0, -2)
        grad_given = None
        if ctx.needs_input_grad[1]:
            grad_given = (grad_narrow @ a).to(given.dtype).view(given.shape)
            if kept is not None:
                grad_given.mul_(kept)
        return grad, grad_given, grad_a, grad_b, None, None


def _kept(given: torch.Tensor, dropped: int) -> torch.Tensor:
    """1 where an element stays and 0 elsewhere, in its type: PyTorch is slow with masks of bool."""
    words = torch.empty((given.numel() + 3) // 4, dtype=torch.int64, device=given.device)
    drawn = words.random_(-(2**63), None).view(torch.int16)[: given.numel()].view(given.shape)
    return torch.ge(drawn, dropped - _LEVELS // 2, out=torch.empty_like(given))
