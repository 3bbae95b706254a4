"""Share of a model in 4 bits: the counts, the warning, and gpt-oss in MXFP4 as published."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.support.mxfp4 import pack_experts
from tests.support.train_jobs import spec
from worker.modeling import load
from worker.modeling.load import load_base
from worker.modeling.quantization_coverage import Amount, Coverage

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("bfloat16")
IN_4BIT = {"load_in_4bit": True}


@pytest.mark.parametrize("double", [True, False])
def test_the_count_is_of_parameters_and_of_bytes(models_dir, double):
    run_spec = spec(quantization=IN_4BIT | {"bnb_4bit_use_double_quant": double})
    base = load_base(models_dir / "tiny-llama", run_spec, CPU)
    # Two layers of q, o: 64x64; k, v: 64x32; gate, up, down: 64x96.
    quantized = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    others = 2 * 400 * 64 + 5 * 64  # embeddings, output layer, norms, in float32
    coverage = base.coverage
    assert coverage.in_4bit.parameters == quantized
    assert coverage.in_all.parameters == quantized + others
    assert coverage.share == quantized / (quantized + others)
    # Blocks of 64 have a scale: of a byte where doubled (and one more in float32 for 256), else 4.
    scales = quantized // 64 * (1 if double else 4) + (14 * 4 if double else 0)
    assert coverage.in_4bit.bytes == quantized // 2 + scales
    assert coverage.in_all.bytes == quantized // 2 + scales + 4 * others
    assert coverage.left_out == {}
    assert f"{coverage.share:.1%} of the base model's parameters" in coverage.summary()
    assert f"{coverage.share_of_bytes:.1%} of its bytes" in coverage.summary()


def test_experts_that_stay_are_named_by_kind_with_their_sizes(models_dir):
    run_spec = spec(quantization=IN_4BIT, training={"bf16": True})
    coverage = load_base(models_dir / "tiny-gpt_oss", run_spec, CPU).coverage
    # Two experts in each of two layers. Biases are no matrices, if two-dimensional here.
    assert coverage.left_out == {
        "model.layers.*.mlp.experts.gate_up_proj": Amount(
            2, 2 * 2 * 64 * 192, 2 * 2 * 2 * 64 * 192
        ),
        "model.layers.*.mlp.experts.down_proj": Amount(2, 2 * 2 * 96 * 64, 2 * 2 * 2 * 96 * 64),
        "model.layers.*.mlp.router.weight": Amount(2, 2 * 2 * 64, 2 * 2 * 2 * 64),
    }
    assert next(iter(coverage.left_out)).endswith("gate_up_proj")  # the largest first
    text = coverage.warning()
    assert "gate_up_proj (49,152 parameters in 2 matrices, 0.10 MB)" in text
    assert "layers.0" not in text


def test_a_warning_names_the_largest_kinds_alone():
    amounts = {f"kind{number}.weight": Amount(1, 10, 20) for number in range(10)}
    text = Coverage(Amount(12, 200, 300), Amount(2, 100, 60), amounts).warning()
    assert "Only 50.0% of the base model's parameters are held in 4 bits (100 of 200)" in text
    assert "they are 20.0% of its bytes" in text
    assert "kind7.weight (10 parameters in 1 matrix, " in text
    assert "kind8" not in text
    assert "and 2 more kinds" in text


@pytest.fixture(scope="module")
def mxfp4(models_dir, tmp_path_factory):
    """tiny-gpt_oss with its experts as gpt-oss is published, and what these are in float32."""
    directory = tmp_path_factory.mktemp("mxfp4") / "tiny-gpt_oss"
    return directory, pack_experts(models_dir / "tiny-gpt_oss", directory)


@pytest.mark.parametrize("in_4bit", [True, False])
@pytest.mark.parametrize("bf16", [True, False])
def test_mxfp4_experts_are_dequantized_and_the_rest_is_quantized(mxfp4, in_4bit, bf16):
    directory, expected = mxfp4
    run_spec = spec(quantization={"load_in_4bit": in_4bit}, training={"bf16": bf16})
    base = load_base(directory, run_spec, CPU)
    parameters = dict(base.model.named_parameters())
    assert len(expected) == 4
    for name, values in expected.items():
        assert parameters[name].dtype == (torch.bfloat16 if bf16 else torch.float32)
        assert torch.equal(parameters[name].float(), values), name  # 4 bits and a power of 2: exact
    attention = 2 * (2 * 64 * 64 + 2 * 64 * 32)
    assert base.coverage.in_4bit.parameters == (attention if in_4bit else 0)
    assert not hasattr(base.model.config, "quantization_config")
    with torch.no_grad():
        assert base.model(input_ids=torch.tensor([[5, 6, 7]])).logits.isfinite().all()


def test_dequantizing_is_asked_for_outright(mxfp4, monkeypatch):
    """Not left to what GPU and kernels a machine has; on this one there is no difference."""
    configs = []
    read = load._read_model
    monkeypatch.setattr(load, "_read_model", lambda *args: configs.append(args[-1]) or read(*args))
    load_base(mxfp4[0], spec(quantization=IN_4BIT), CPU)
    assert [config.dequantize for config in configs] == [True]


def test_dequantized_experts_give_the_scores_of_the_same_model_in_float32(
    mxfp4, models_dir, tmp_path
):
    directory, expected = mxfp4
    plain = tmp_path / "plain"
    shutil.copytree(models_dir / "tiny-gpt_oss", plain)
    weights = load_file(plain / "model.safetensors") | {
        name: values.contiguous() for name, values in expected.items()
    }
    save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        packed_logits = load_base(directory, spec(), CPU).model.eval()(input_ids=ids).logits
        plain_logits = AutoModelForCausalLM.from_pretrained(plain).eval()(input_ids=ids).logits
    assert torch.allclose(packed_logits, plain_logits, rtol=1e-5, atol=1e-6)
