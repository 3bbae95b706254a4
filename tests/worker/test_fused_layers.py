"""Layers that keep less: the same results and gradients as transformers' and peft's own."""

import pytest
import torch
from torch import nn

from service.domain.training_spec import LoraSection
from tests.support.tiny_models import EACH_FAMILY
from tests.support.train_jobs import spec
from worker.modeling.fused_layers import _Lora, fuse_layers
from worker.modeling.load import add_adapter, load_base, set_training


def adapter(**fields):
    return LoraSection(
        **{
            "r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.0,
            "target_modules": "all-linear",
            **fields,
        }
    )


def result(model, seed=1):
    """Loss, and the gradient of every trained matrix, on fixed rows."""
    torch.manual_seed(seed)
    ids = torch.randint(10, 400, (3, 21), generator=torch.Generator().manual_seed(4))
    set_training(model, training=True)
    model.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), grads


def filled(model):
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return model


def pair(make, lora):
    """The model with layers as they come, and the one with lean ones; both with one adapter."""
    plain, lean = (filled(add_adapter(make(), lora, 1, "tiny")) for _ in range(2))
    fuse_layers(lean)
    return plain, lean


def assert_same(plain, lean, tolerance):
    loss, grads = result(plain)
    lean_loss, lean_grads = result(lean)
    assert lean_loss == pytest.approx(loss, rel=tolerance)
    assert grads.keys() == lean_grads.keys()
    for name, grad in grads.items():
        assert (grad - lean_grads[name]).norm() <= tolerance * grad.norm() + 1e-9, name


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_gradients_are_the_same(load, family):
    def make():
        model, _ = load(family)
        return model.requires_grad_(requires_grad=False)

    plain, lean = pair(make, adapter())
    changed = [m for m in lean.modules() if "forward" in vars(m)]
    assert len(changed) >= (11 if family == "gpt_oss" else 15)
    assert not [m for m in plain.modules() if "forward" in vars(m)]
    assert_same(plain, lean, 1e-5)


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_also_over_4_bit_weights_in_bfloat16(models_dir, family):
    run_spec = spec(quantization={"load_in_4bit": True}, training={"bf16": True})

    def make():
        return load_base(models_dir / f"tiny-{family}", run_spec, torch.device("cpu")).model

    # bfloat16 rounds to 8 bits, and the two ways add gradients up in another order.
    assert_same(*pair(make, adapter()), 2e-2)


@pytest.mark.parametrize("probability", [0.05, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_expectation(probability, dtype):
    torch.manual_seed(1)
    rows, width = 3000, 64
    hidden = torch.ones(rows, width, dtype=dtype, requires_grad=True)
    a = torch.eye(width, requires_grad=True)
    b = torch.eye(width, requires_grad=True)
    out = _Lora.apply(torch.zeros(rows, width), hidden, a, b, 1.0, probability)
    dropped = (out == 0).float()
    draws = rows * width
    deviation = (probability * (1 - probability) / draws) ** 0.5
    assert dropped.mean().item() == pytest.approx(probability, abs=4 * deviation)
    assert out.max().item() == pytest.approx(1 / (1 - probability), rel=1e-4)
    # Four neighbours share a random word; they must not share their fate.
    flat = dropped.view(-1)
    both = (flat[:-1] * flat[1:]).mean().item()
    assert both == pytest.approx(probability**2, abs=8 * deviation)
    out.sum().backward()
    # The gradient goes where something was kept, and has its size.
    assert torch.equal(hidden.grad == 0, out == 0)
    assert hidden.grad.max().item() == pytest.approx(1 / (1 - probability), rel=1e-2)


def test_gradients_of_dropout_are_those_of_the_mask_drawn():
    torch.manual_seed(2)
    shapes = ((5, 8), (8,), (3, 8), (6, 3))
    hidden, _, a, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    base = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)

    def seeded(*inputs):
        torch.manual_seed(9)
        return _Lora.apply(*inputs, 0.7, 0.4)

    assert torch.autograd.gradcheck(seeded, (base, hidden, a, b))


def test_the_generator_decides_and_evaluation_drops_nothing(load):
    model, _ = load("llama")
    model.requires_grad_(requires_grad=False)
    model = filled(add_adapter(model, adapter(lora_dropout=0.5), 1, "x"))
    fuse_layers(model)
    assert result(model, 1)[0] == result(model, 1)[0] != result(model, 2)[0]
    set_training(model, training=False)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        tuned = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, tuned)
        with model.disable_adapter():
            base = model(input_ids=ids).logits
    fresh, _ = load("llama")
    assert torch.allclose(base, fresh(input_ids=ids).logits, atol=1e-5)
    assert not torch.allclose(base, tuned, atol=1e-2)


class GemmaRMSNorm(nn.Module):
    """Scales by one more than its weight, under names like those of the others."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((8,), 0.5), requires_grad=False)
        self.variance_epsilon = 1e-6

    def forward(self, hidden):
        return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


def test_layers_that_compute_something_else_stay_as_they_are(load):
    assert fuse_layers(GemmaRMSNorm()) == {"norm": 0, "mlp": 0, "lora": 0}
    model, _ = load("llama")
    model.requires_grad_(requires_grad=False)
    model = add_adapter(model, adapter(use_dora=True), 1, "x")
    fuse_layers(model)
    lean = [name for name, m in model.named_modules() if "forward" in vars(m)]
    assert lean
    assert not [name for name in lean if name.endswith("_proj")]
