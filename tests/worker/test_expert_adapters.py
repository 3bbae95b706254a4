"""LoRA on weights that are no linear layers, the experts of gpt-oss: lora.target_parameters."""

import json

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from pydantic import ValidationError

from service.domain.errors import ProgramFailure
from service.domain.training_spec import LoraSection
from tests.support.train_jobs import (
    events,
    make_job,
    make_trainer,
    of_type,
    run_here,
    spec,
    token_examples,
)
from worker.modeling.fused_layers import fuse_layers
from worker.modeling.load import add_adapter, set_training
from worker.training import checkpoints

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def lora(**fields):
    base = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_parameters": EXPERTS}
    return base | fields


def frozen(load, family="gpt_oss"):
    model, _ = load(family)
    return model.requires_grad_(requires_grad=False)


def wrappers(model):
    return [module for module in model.modules() if isinstance(module, ParamWrapper)]


def test_dropout_and_dora_are_refused_and_modules_may_be_none():
    assert LoraSection(**lora(target_modules=[])).target_modules == []
    for fields, message in (
        ({"lora_dropout": 0.05}, "set lora_dropout to 0 (it is 0.05)"),
        ({"use_dora": True}, "use_dora"),
        ({"target_parameters": ["a", "a"]}, "twice"),
        ({"target_parameters": [" "]}, "is empty"),
        ({"target_parameters": [], "target_modules": []}, "at least one module"),
    ):
        with pytest.raises(ValidationError, match=message.replace("(", r"\(").replace(")", r"\)")):
            LoraSection(**lora(**fields))


@pytest.mark.parametrize(
    ("family", "target", "message"),
    [
        ("gpt_oss", "experts.up_proj", "no parameter named 'experts.up_proj'"),
        ("gpt_oss", "q_proj.weight", "belongs to a linear layer"),
        ("gpt_oss", "weight", "'weight' also matches "),
        ("gpt_oss", "gate_up_proj_bias", "is not a matrix"),
        ("gpt_oss", "sinks", "is not a matrix"),
        ("gpt_oss", "proj", "no parameter named 'proj'"),  # not an end at a dot
        ("llama", "mlp.experts.down_proj", "no parameter named"),
    ],
)
def test_a_parameter_that_is_not_there_or_no_matrix_is_named(load, family, target, message):
    section = LoraSection(**lora(target_parameters=[EXPERTS[0], target][family == "llama" :]))
    with pytest.raises(ProgramFailure) as failure:
        add_adapter(frozen(load, family), section, 1, "tiny")
    assert failure.value.reason == "invalid_spec"
    assert failure.value.detail.startswith("lora.target_parameters: ")
    assert message in failure.value.detail
    there = "router.weight, mlp.experts.gate_up_proj, mlp.experts.down_proj."
    assert failure.value.detail.endswith("none." if family == "llama" else there)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_expert_has_an_adapter_in_float32_that_is_not_fused(load, dtype):
    model = add_adapter(frozen(load).to(dtype), LoraSection(**lora()), 1, "tiny")
    assert len(wrappers(model)) == 4
    for wrapper in wrappers(model):
        assert "forward" not in vars(wrapper)
        assert wrapper.num_experts == 2
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert sum("experts" in name for name in trained) == 8
    assert fuse_layers(model)["lora"] == 4  # q and v of two layers


def test_a_matrix_called_with_nothing_else_is_left_to_peft(load):
    """A router's weight is a matrix: its layer takes one argument, as a linear layer does."""
    section = LoraSection(**lora(target_parameters=["router.weight"], target_modules=[]))
    model = add_adapter(frozen(load), section, 1, "tiny")
    torch.manual_seed(11)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        [*layers] = wrappers(model)
        for layer in layers:
            layer.merge()
        merged = model(input_ids=ids).logits
    assert len(layers) == 2
    assert torch.allclose(adapted, merged, rtol=1e-5, atol=1e-6)


def training(**fields):
    return spec(lora=lora(), training={"num_train_epochs": 3, **fields})


def test_training_changes_every_expert_adapter(load, tmp_path):
    run = make_trainer(load, tmp_path, training(), token_examples(10), family="gpt_oss")
    before = checkpoints.adapter_tensors(run.model)
    run.run()
    after = checkpoints.adapter_tensors(run.model)
    of_experts = [name for name in after if "experts" in name]
    assert len(of_experts) == 8
    for name in of_experts:
        assert not torch.equal(before[name], after[name]), name


def test_a_checkpoint_opens_with_peft_and_scores_the_same(load, tmp_path):
    run = make_trainer(load, tmp_path, training(), token_examples(8), family="gpt_oss")
    run.run()
    newest = tmp_path / "checkpoints" / f"checkpoint-{run.state.step}"
    config = json.loads((newest / "adapter_config.json").read_text())
    assert sorted(config["target_parameters"]) == sorted(EXPERTS)
    opened = PeftModel.from_pretrained(load("gpt_oss")[0], newest).eval()
    set_training(run.model, training=False)
    ids = torch.tensor([token_examples(1)[0].ids])
    with torch.no_grad():
        expected = run.model(input_ids=ids).logits
        assert torch.allclose(opened(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-6)
        with opened.disable_adapter():
            assert not torch.allclose(opened(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-3)


def test_a_whole_run_scores_warns_and_says_what_was_adapted(models_dir, tmp_path):
    run_spec = spec(base_model="tiny-gpt_oss", lora=lora(), quantization={"load_in_4bit": True})
    status, emitted = run_here(make_job(tmp_path, models_dir, run_spec))
    assert status == 0, emitted[-1]
    [warning] = [w for w in of_type(emitted, "warning") if w.code == "partly_quantized"]
    assert "model.layers.*.mlp.experts.gate_up_proj (" in warning.detail
    logged = [event.message for event in of_type(emitted, "log")]
    assert any("of its bytes" in message for message in logged)
    assert "mlp.experts.down_proj" in (tmp_path / "README.md").read_text()
    assert events(tmp_path)[-1].type != "failure"
