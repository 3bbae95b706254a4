"""On a CPU without bfloat16 a run computes in float32, and says so."""

import pytest
import torch

from tests.support.train_jobs import spec
from worker.modeling import precision
from worker.modeling.load import load_base
from worker.modeling.precision import without_bfloat16

CPU = torch.device("cpu")
QLORA = {"quantization": {"load_in_4bit": True}, "training": {"bf16": True}}


@pytest.fixture
def no_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)


@pytest.mark.usefixtures("no_bfloat16")
def test_float32_takes_its_place_in_weights_and_in_4_bit_layers():
    instead = without_bfloat16(spec(**QLORA), CPU)
    assert not instead.training.bf16
    assert instead.quantization.bnb_4bit_compute_dtype == "float32"
    assert instead.quantization.load_in_4bit


@pytest.mark.usefixtures("no_bfloat16")
def test_a_gpu_and_a_run_in_float32_are_left_alone():
    assert without_bfloat16(spec(**QLORA), torch.device("cuda")) is None
    assert without_bfloat16(spec(), CPU) is None


def test_a_cpu_that_has_it_uses_it(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    assert without_bfloat16(spec(**QLORA), CPU) is None


@pytest.mark.usefixtures("no_bfloat16")
def test_the_loaded_model_computes_in_float32(models_dir):
    import bitsandbytes as bnb

    base = load_base(models_dir / "tiny-llama", spec(**QLORA), CPU)
    assert base.in_float32
    layers = [m for m in base.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert layers
    assert {layer.compute_dtype for layer in layers} == {torch.float32}
    assert base.model.get_input_embeddings().weight.dtype == torch.float32


def test_pytorch_is_asked_what_it_does_with_bfloat16():
    assert precision.has_bfloat16() in (True, False)
    if torch.cpu.get_capabilities().get("amx_bf16") or torch.cpu.get_capabilities().get(
        "avx512_bf16"
    ):
        assert precision.has_bfloat16()
