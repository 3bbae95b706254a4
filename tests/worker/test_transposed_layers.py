"""GPT-2's layers, transformers' Conv1D, whose weights are stored as (in, out)."""

import pytest
import torch

from service.domain.errors import ProgramFailure
from tests.support.model_variants import make_model
from tests.support.train_jobs import spec
from worker.merging.base_files import BaseFiles
from worker.merging.companion_files import write_companion_files
from worker.merging.streamed import QuantizedWeights, unstreamable_reason, write_merged
from worker.merging.updates import names_in_4bit, transposed_names, updates_of
from worker.modeling.load import add_adapter, load_base

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 30, 31, 32, 33, 34, 40]])


@pytest.fixture(scope="module")
def gpt2(models_dir, tmp_path_factory):
    return make_model("gpt2", tmp_path_factory.mktemp("models") / "gpt2", models_dir / "tiny-llama")


def specification(**changes):
    lora = {"target_modules": ["c_attn", "c_proj", "c_fc"], "lora_dropout": 0}
    return spec(base_model="gpt2", lora=lora | changes.pop("lora", {}), **changes)


@pytest.mark.parametrize("in_4bit", [False, True])
@pytest.mark.parametrize("targets", [["c_attn"], ["attn.c_proj"], "all-linear"])
@pytest.mark.parametrize("use_dora", [False, True])
@torch.no_grad()
def test_the_merged_model_computes_what_the_adapter_does(
    gpt2, tmp_path, in_4bit, targets, use_dora
):
    """Square matrices too, whose shape does not show that they are transposed."""
    run_spec = specification(
        lora={"target_modules": targets, "use_dora": use_dora},
        quantization={"load_in_4bit": in_4bit, "bnb_4bit_compute_dtype": "float32"},
    )
    base = load_base(gpt2, run_spec, CPU)
    model = add_adapter(base.model, run_spec.lora, 1, "gpt2")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = model(input_ids=IDS).logits
    quantized = None
    if in_4bit:
        quantized = QuantizedWeights(
            frozenset(names_in_4bit(model)),
            run_spec.quantization,
            torch.float32,
            CPU,
            frozenset(transposed_names(model)),
        )
    updates, target = updates_of(model), tmp_path / "merged"
    target.mkdir()

    def write(_name, action):
        action()

    with BaseFiles(gpt2) as files:
        assert unstreamable_reason(files, updates) is None
        write_merged(files, target, updates, quantized, torch.float32, 10**9, write, lambda: None)
    write_companion_files(gpt2, target, "float32", write)
    merged = load_base(target, specification(), CPU).model(input_ids=IDS).logits
    assert torch.allclose(merged, expected, rtol=1e-3, atol=1e-3)


def test_its_layers_are_listed(gpt2):
    base = load_base(gpt2, specification(), CPU)
    with pytest.raises(ProgramFailure) as failure:
        add_adapter(base.model, specification(lora={"target_modules": ["q_proj"]}).lora, 1, "gpt2")
    assert failure.value.reason == "invalid_spec"
    assert failure.value.detail.endswith("it has c_attn, c_fc, c_proj.")
