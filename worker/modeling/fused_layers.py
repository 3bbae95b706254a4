"""Fused layers that save less for the backward pass and read memory fewer times.

The activations saved for the backward pass are most of the memory of training, and reading them
again is most of the time that is not spent in matrix products. Three layers save several times what
they need: RMSNorm and SwiGLU as transformers writes them, since autograd saves the operands of each
elementary operation, and LoRA as peft writes it, which saves the layer's input in float32 twice for
each adapter. Here each of them is one autograd function with a hand-written backward pass. In 16
bits they may round at other places than the originals.

`fuse_layers` puts them into a model, each only where a check on random numbers gives the output of
the original layer.
"""

from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu

_DROPOUT_LEVELS = 2**16
"""The dropout probability is rounded to a multiple of 1 / _DROPOUT_LEVELS."""


def fuse_layers(model: nn.Module) -> dict[str, int]:
    """Replace the forward methods of eligible layers; return how many of each kind.

    Kinds: ``norm`` (RMSNorm), ``mlp`` (SwiGLU), ``lora`` (linear layers with a LoRA adapter).
    """
    counts = {"norm": 0, "mlp": 0, "lora": 0}
    for module in model.modules():
        for kind, is_eligible, forward in (
            ("norm", _is_rms_norm, _rms_norm_forward),
            ("mlp", _is_swiglu_mlp, _mlp_forward),
            ("lora", _is_lora_linear, _lora_forward),
        ):
            if is_eligible(module):
                # Bound to the module, so that a copy of the model has its own.
                module.forward = MethodType(forward, module)
                counts[kind] += 1
    return counts


def _is_rms_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return False
    return (
        isinstance(weight, nn.Parameter)
        and not weight.requires_grad
        and _matches_original(module, weight)
    )


def _rms_norm_forward(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _RmsNorm.apply(hidden, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]  # of torch
    return out


def _is_swiglu_mlp(module: nn.Module) -> bool:
    if not all(hasattr(module, f"{name}_proj") for name in ("gate", "up", "down")):
        return False
    # Checked with stand-ins for its three matrices: bitsandbytes repacks 4-bit matrices that are
    # called where no gradient is required, and they could no longer be trained.
    stub = SimpleNamespace(
        gate_proj=lambda x: 1.3 * x, up_proj=lambda x: x - 0.4, down_proj=lambda x: 2 * x
    )
    stub.act_fn, probe = getattr(module, "act_fn", None), torch.linspace(-4, 4, 64)
    try:
        output = type(module).forward(stub, probe)
    except (AttributeError, TypeError):  # its forward pass uses more than these
        return False
    return torch.allclose(output, 2 * silu(1.3 * probe) * (probe - 0.4))


def _mlp_forward(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    gated = _SwiGlu.apply(module.gate_proj(hidden), module.up_proj(hidden))  # type: ignore[no-untyped-call]  # of torch
    out: torch.Tensor = module.down_proj(gated)
    return out


def _is_lora_linear(module: nn.Module) -> bool:
    """Return True if peft adds B A x to the layer and nothing else.

    Wrappers of single parameters (lora.target_parameters) are other classes and are not fused.
    """
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


def _lora_forward(module: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    unfused = module.merged or module.disable_adapters or module.active_adapters != ["default"]
    if unfused or args or kwargs:
        out: torch.Tensor = type(module).forward(module, hidden, *args, **kwargs)
        return out
    dropout = module.lora_dropout["default"]
    result: torch.Tensor = _Lora.apply(  # type: ignore[no-untyped-call]  # of torch
        module.base_layer(hidden),
        hidden,
        module.lora_A["default"].weight,
        module.lora_B["default"].weight,
        module.scaling["default"],
        dropout.p if module.training and isinstance(dropout, nn.Dropout) else 0.0,
    )
    return result


def _matches_original(norm: nn.Module, weight: torch.Tensor) -> bool:
    """Return True if fused and original norm agree on random numbers, to their type's rounding."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, len(weight), generator=generator).to(weight.device, weight.dtype)
    with torch.no_grad():
        original, fused = norm(hidden), _rms_norm_forward(norm, hidden)
    return original.dtype == fused.dtype and torch.allclose(
        original.float(), fused.float(), 1e-2, 1e-5
    )


class _RmsNorm(torch.autograd.Function):
    """Root mean square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467), in float32.

    y = weight * x / sqrt(mean(x²) + eps) over the last dimension; saves x and one factor per row.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = hidden.float()
        square = torch.linalg.vecdot(wide, wide).div_(hidden.shape[-1])
        factor = torch.rsqrt(square.add_(eps)).unsqueeze(-1)
        ctx.save_for_backward(hidden, weight, factor)
        return weight * (wide * factor).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        hidden, weight, factor = ctx.saved_tensors
        normed = hidden.float() * factor
        wide = (grad * weight).float()
        along = torch.linalg.vecdot(wide, normed).div_(hidden.shape[-1]).unsqueeze(-1)
        return wide.addcmul_(normed, along, value=-1).mul_(factor).to(hidden.dtype), None, None


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
    """result + scaling * B A dropout(hidden) (Hu et al. 2021, arXiv:2106.09685).

    The adapter's product is computed in the adapter's dtype. Dropout uses 16 random bits per
    element, four elements from one draw of the generator: PyTorch draws 32 bits one after another,
    which takes a tenth of a step on a CPU. The probability is rounded to a multiple of 2**-16, and
    the remaining elements are scaled by the rounded one, so that the expectation is exact.
    """

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        hidden: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        probability: float,
    ) -> torch.Tensor:
        dropped_levels = round(probability * _DROPOUT_LEVELS)
        mask = _dropout_mask(hidden, dropped_levels) if dropped_levels else None
        ctx.scaling, ctx.stretch = scaling, _DROPOUT_LEVELS / (_DROPOUT_LEVELS - dropped_levels)
        masked = hidden if mask is None else hidden * mask
        low_rank = (masked.to(a.dtype) @ a.t()).mul_(ctx.stretch)
        ctx.save_for_backward(hidden, mask, a, b, low_rank)
        return (low_rank @ b.t()).mul_(scaling).to(result.dtype).add_(result)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        hidden, mask, a, b, low_rank = ctx.saved_tensors
        wide = grad.to(b.dtype).flatten(0, -2)
        grad_b = (wide.t() @ low_rank.flatten(0, -2)).mul_(ctx.scaling)
        grad_low_rank = (wide @ b).mul_(ctx.scaling * ctx.stretch)
        masked = hidden if mask is None else hidden * mask
        grad_a = grad_low_rank.t() @ masked.to(a.dtype).flatten(0, -2)
        grad_hidden = None
        if ctx.needs_input_grad[1]:
            grad_hidden = (grad_low_rank @ a).to(hidden.dtype).view(hidden.shape)
            if mask is not None:
                grad_hidden.mul_(mask)
        return grad, grad_hidden, grad_a, grad_b, None, None


def _dropout_mask(hidden: torch.Tensor, dropped_levels: int) -> torch.Tensor:
    """Return 1 for remaining and 0 for dropped elements, in the dtype and shape of `hidden`.

    Not a bool mask, because PyTorch multiplies by those slowly.
    """
    words = torch.empty((hidden.numel() + 3) // 4, dtype=torch.int64, device=hidden.device)
    random = words.random_(-(2**63), None).view(torch.int16)[: hidden.numel()].view(hidden.shape)
    return torch.ge(random, dropped_levels - _DROPOUT_LEVELS // 2, out=torch.empty_like(hidden))
