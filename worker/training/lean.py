"""Layers that keep less for the backward pass, and take fewer passes over it.

What a forward pass keeps is most of a training's memory, and reading it again most of what is not
matrix products. Three layers keep several times what they need: RMSNorm and SwiGLU as transformers
writes them, since each elementary operation keeps its own operands, and LoRA as peft writes it,
which keeps the layer's input in float32 twice for each adapter. Here each is one autograd function
whose backward pass is written out. Numbers are rounded where the originals round them.

`make_lean` puts them into a model, each only where a trial gives what the layer gave before.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu

Forward = Callable[[torch.Tensor], torch.Tensor]
_LEVELS = 2**16


def make_lean(model: nn.Module) -> dict[str, int]:
    """Replace what can be; return how many layers of each kind were."""
    counts = {"norm": 0, "mlp": 0, "lora": 0}
    for module in model.modules():
        for kind, make in (("norm", _lean_norm), ("mlp", _lean_mlp), ("lora", _lean_lora)):
            if (forward := make(module)) is not None:
                module.forward = forward
                counts[kind] += 1
    return counts


def _lean_norm(module: nn.Module) -> Forward | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", None)
    if not type(module).__name__.endswith("RMSNorm") or weight is None or eps is None:
        return None
    if weight.requires_grad:
        return None

    def forward(given: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _Norm.apply(given, weight, eps)  # type: ignore[no-untyped-call]  # of torch
        return out

    return forward if _agree(module.forward, forward, weight) else None


def _lean_mlp(module: nn.Module) -> Forward | None:
    gate, up, down = (getattr(module, f"{name}_proj", None) for name in ("gate", "up", "down"))
    activation = getattr(module, "act_fn", None)
    if gate is None or up is None or down is None or activation is None:
        return None
    # On stand-ins for its three matrices: bitsandbytes repacks 4-bit ones that are called where no
    # gradient is wanted, and they could not be trained any more.
    stub = SimpleNamespace(
        gate_proj=lambda x: 1.3 * x, up_proj=lambda x: x - 0.4, down_proj=lambda x: 2 * x
    )
    stub.act_fn, trial = activation, torch.linspace(-4, 4, 64)
    try:
        found = type(module).forward(stub, trial)
    except AttributeError:  # it is made of more than these
        return None
    if not torch.allclose(found, 2 * silu(1.3 * trial) * (trial - 0.4)):
        return None

    def forward(given: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = down(_SwiGlu.apply(gate(given), up(given)))  # type: ignore[no-untyped-call]  # of torch
        return out

    return forward


def _lean_lora(module: nn.Module) -> Forward | None:
    from peft.tuners.lora.layer import LoraLayer

    if not isinstance(module, LoraLayer) or list(module.active_adapters) != ["default"]:
        return None
    if (
        "default" not in module.lora_A
        or module.use_dora.get("default")
        or module.lora_bias.get("default")
    ):
        return None
    a, b = module.lora_A["default"], module.lora_B["default"]
    if type(a) is not nn.Linear or type(b) is not nn.Linear:
        return None
    dropout = module.lora_dropout["default"]
    probability = dropout.p if isinstance(dropout, nn.Dropout) else 0.0
    scaling = module.scaling["default"]
    original: Forward = module.forward

    def forward(given: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        if module.merged or module.disable_adapters or others or named:
            return original(given, *others, **named)
        result: torch.Tensor = _Lora.apply(  # type: ignore[no-untyped-call]  # of torch
            module.base_layer(given),
            given,
            a.weight,
            b.weight,
            scaling,
            probability if module.training else 0.0,
        )
        return result

    return forward


def _agree(original: Forward, lean: Forward, like: torch.Tensor) -> bool:
    """On random numbers of the weight's type, to its rounding."""
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(4, len(like), generator=generator).to(like.device, like.dtype)
    with torch.no_grad():
        return torch.allclose(original(given).float(), lean(given).float(), rtol=1e-2, atol=1e-5)


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
