"""The loss, the loop and checkpoints, in one process."""

import json
from types import SimpleNamespace

import pytest
import torch

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from service.domain.steps import StepPlan
from tests.support.tiny_models import EACH_FAMILY
from tests.support.train_jobs import make_trainer as trainer
from tests.support.train_jobs import spec
from tests.support.train_jobs import token_examples as examples
from worker.modeling.load import add_adapter, load_base, set_training
from worker.training import checkpoints
from worker.training.checkpoints import BrokenCheckpoint
from worker.training.padded import Padded, target_count
from worker.training.schedule import epoch_order

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", EACH_FAMILY)
@pytest.mark.parametrize("train_on", ["completion", "all"])
def test_the_loss_of_a_padded_batch_is_that_of_its_rows_alone(load, family, train_on):
    model, _ = load(family)
    micro = examples(4)
    with torch.no_grad():
        together = Padded(model, train_on, 0, CPU).loss_sum(micro).item()
        alone = 0.0
        for example in micro:
            ids = torch.tensor([example.ids])
            targets = ids.clone()
            if train_on == "completion":
                targets[:, : example.start] = -100
            # transformers' own loss: a mean over the targets, shifted by one.
            mean = model(input_ids=ids, labels=targets).loss.item()
            alone += mean * target_count(example, train_on)
    assert together == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_accumulation_of_8_by_1_is_1_by_8(load, tmp_path, family):
    adapters = []
    for size, steps in ((8, 1), (1, 8), (3, 3)):
        run_spec = spec(
            training={
                "per_device_train_batch_size": size,
                "gradient_accumulation_steps": steps,
                "eval_strategy": "no",
                "save_strategy": "no",
                "num_train_epochs": None,
                "max_steps": 3,
                "warmup_steps": 0,
            },
            lora={"lora_dropout": 0.0},
        )
        run = trainer(load, tmp_path, run_spec, family=family)
        run.run()
        adapters.append(checkpoints.adapter_tensors(run.model))
    for adapter in adapters[1:]:
        for name, tensor in adapters[0].items():
            assert torch.allclose(tensor, adapter[name], rtol=1e-4, atol=1e-5), name


def evaluated(load, directory, losses, **training):
    """Return a trainer whose validation losses are `losses`, after its run."""
    run_spec = spec(
        training={
            "num_train_epochs": len(losses),
            "save_strategy": "epoch",
            "save_total_limit": 1,
            **training,
        }
    )
    run = trainer(load, directory, run_spec, examples(4), examples(2))
    validation_losses = iter(losses)
    run._evaluate = lambda: {"eval_loss": next(validation_losses)}
    run.run()
    return run


def test_early_stopping_counts_as_transformers_does(load, tmp_path):
    # Best so far: 1.0, 1.0, 0.95, 0.9, 0.9. Against a threshold of 0.1: first, no, no, no.
    losses = [1.0, 1.05, 0.95, 0.9, 0.5]
    run = evaluated(load, tmp_path, losses, early_stopping_patience=3, early_stopping_threshold=0.1)
    assert run.state.step == 4
    assert run.state.stopped_early
    # An improvement below the threshold does not reset patience, but is the new best.
    assert (run.state.best_metric, run.state.best_step) == (0.9, 4)

    from transformers import EarlyStoppingCallback, TrainerControl

    theirs = EarlyStoppingCallback(3, 0.1)
    state, best = SimpleNamespace(best_metric=None), None
    arguments = SimpleNamespace(metric_for_best_model="eval_loss", greater_is_better=False)
    evaluations = 0
    for loss in losses:
        evaluations += 1
        state.best_metric = best
        control = TrainerControl()
        theirs.on_evaluate(arguments, state, control, {"eval_loss": loss})
        best = loss if best is None else min(best, loss)
        if control.should_training_stop:
            break
    assert evaluations == run.state.step


def test_an_improvement_above_the_threshold_starts_patience_anew(load, tmp_path):
    run = evaluated(
        load,
        tmp_path,
        [1.0, 1.1, 0.5, 0.6, 0.7],
        early_stopping_patience=2,
        early_stopping_threshold=0.1,
    )
    assert (run.state.step, run.state.best_step) == (5, 3)


def test_the_best_weights_are_the_ones_taken(load, tmp_path):
    run = evaluated(load, tmp_path, [0.9, 0.5, 0.7], early_stopping_patience=0)
    assert run.chosen_step == 2
    best = checkpoints.read(tmp_path / "checkpoints/checkpoint-2").adapter
    last = checkpoints.read(tmp_path / "checkpoints/checkpoint-3")
    current = checkpoints.adapter_tensors(run.model)
    assert all(torch.equal(current[name], tensor) for name, tensor in best.items())
    assert not all(torch.equal(current[name], tensor) for name, tensor in last.adapter.items())
    # A later checkpoint carries the best one: resuming needs no other.
    assert last.best_adapter is not None
    assert all(torch.equal(last.best_adapter[name], tensor) for name, tensor in best.items())
    announced = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [e["best_step"] for e in announced if e["type"] == "checkpoint"] == [1, 2, 2]


@pytest.mark.parametrize(
    ("interval", "steps"),
    [(1000, [5]), (5, [5]), (4, [4, 5]), (2, [2, 4, 5]), (1, [1, 2, 3, 4, 5])],
)
def test_the_last_step_is_evaluated_whatever_the_interval_is(load, tmp_path, interval, steps):
    losses = [1 / (step + 1) for step in range(len(steps))]
    every = {"eval_strategy": "steps", "eval_steps": interval}
    saved = {"save_strategy": "steps", "save_steps": interval, "save_total_limit": 9}
    run = evaluated(load, tmp_path, losses, **every, **saved, max_steps=5, num_train_epochs=None)
    assert [entry["step"] for entry in run.state.log_history if "eval_loss" in entry] == steps
    assert sorted(checkpoints.steps_in(tmp_path / "checkpoints")) == steps
    assert (run.chosen_step, run.plan.evaluations(run.spec.training)) == (5, len(steps))
    assert run.eta._evaluations(5) == len(steps)


def test_a_loss_that_is_not_a_number_ends_the_run(load, tmp_path):
    run = trainer(
        load, tmp_path, spec(training={"eval_strategy": "no", "load_best_model_at_end": False})
    )
    with torch.no_grad():
        run.model.get_base_model().lm_head.weight[:] = float("inf")
    before = checkpoints.adapter_tensors(run.model)
    with pytest.raises(ProgramFailure) as failure:
        run.run()
    assert failure.value.reason == FailureReason.DIVERGED
    assert "Step 1:" in failure.value.detail
    assert "learning rate" in failure.value.detail
    after = checkpoints.adapter_tensors(run.model)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_is_taken(load, tmp_path):
    run = trainer(
        load,
        tmp_path,
        spec(
            training={
                "num_train_epochs": 2,
                "eval_strategy": "no",
                "save_strategy": "steps",
                "save_steps": 2,
                "load_best_model_at_end": False,
            }
        ),
    )
    parameter = next(p for p in run.model.parameters() if p.requires_grad)
    parameter.register_hook(
        lambda gradient: gradient * float("inf") if run.state.step == 2 else gradient
    )
    snapshots = {}
    make_step = run._step

    def watching():
        snapshots["before"] = checkpoints.adapter_tensors(run.model)
        return make_step()

    run._step = watching
    with pytest.raises(ProgramFailure) as failure:
        run.run()
    assert failure.value.reason == FailureReason.DIVERGED
    assert "Step 3: loss " in failure.value.detail
    assert "loss nan" not in failure.value.detail
    assert "gradient norm" in failure.value.detail
    assert "learning rate 0.01." in failure.value.detail
    current = checkpoints.adapter_tensors(run.model)
    assert all(torch.equal(current[name], tensor) for name, tensor in snapshots["before"].items())
    assert checkpoints.steps_in(tmp_path / "checkpoints") == [2]
    good = checkpoints.read(tmp_path / "checkpoints" / "checkpoint-2")
    assert all(torch.equal(good.adapter[name], tensor) for name, tensor in current.items())
    assert all(torch.isfinite(tensor).all() for tensor in good.optimizer.values())


@pytest.fixture
def saved(load, tmp_path):
    run = evaluated(load, tmp_path, [0.9, 0.5], early_stopping_patience=0)
    del run
    return tmp_path / "checkpoints" / "checkpoint-1"


def test_a_checkpoint_is_an_adapter_that_peft_opens(load, saved):
    from peft import PeftModel

    model, _ = load("llama")
    opened = PeftModel.from_pretrained(model, saved)
    for name, tensor in checkpoints.read(saved).adapter.items():
        assert torch.equal(checkpoints.adapter_tensors(opened)[name], tensor)
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert not [path.name for path in saved.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "harm",
    ["truncate", "flip", "remove", "add", "manifest", "no manifest"],
)
def test_a_torn_or_tampered_checkpoint_is_refused(saved, harm):
    weights = saved / "adapter_model.safetensors"
    data = weights.read_bytes()
    if harm == "truncate":
        weights.write_bytes(data[:-1])
    elif harm == "flip":
        weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "remove":
        (saved / "optimizer.safetensors").unlink()
    elif harm == "add":
        (saved / "optimizer.pt").write_bytes(b"")
    elif harm == "manifest":
        (saved / "manifest.json").write_text("{")
    else:
        (saved / "manifest.json").unlink()
    with pytest.raises(BrokenCheckpoint):
        checkpoints.read(saved)


def test_an_adapter_of_another_rank_is_not_loaded(load, saved):
    model, _ = load("llama")
    adapter = add_adapter(model, spec(lora={"r": 8}).lora, 1, "tiny")
    with pytest.raises(BrokenCheckpoint):
        checkpoints.load_adapter(adapter, checkpoints.read(saved).adapter)


def test_scoring_leaves_quantized_layers_fit_for_training(models_dir):
    """bitsandbytes repacks 4-bit weights in evaluation mode and then gives no gradients."""
    run_spec = spec(quantization={"load_in_4bit": True}, training={"bf16": True})
    base = load_base(models_dir / "tiny-llama", run_spec, CPU)
    assert 0.4 < base.coverage.share < 0.9
    set_training(base.model, training=False)
    with torch.no_grad():
        base.model(input_ids=torch.tensor([[5, 6, 7]]))
    for parameter in base.model.parameters():
        state = getattr(parameter, "quant_state", None)
        assert not getattr(state, "packing_format_for_cpu", False)
    model = add_adapter(base.model, run_spec.lora, 1, "tiny")
    set_training(model, training=True)
    Padded(model, "completion", 0, CPU).loss_sum(examples(2)).backward()
    first = [p for n, p in model.named_parameters() if "layers.0" in n and "lora_B" in n]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in first)


def test_the_same_seed_gives_the_same_adapter(load):
    first, second, third = (
        checkpoints.adapter_tensors(add_adapter(load("llama")[0], spec().lora, seed, "tiny"))
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_the_plan_counts_steps_as_transformers_does():
    training = spec(training={"num_train_epochs": 2.5}).training
    plan = StepPlan.of(training, 10)  # 4 a step: the last of an epoch has 2
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (3, 8, 2)
    capped = spec(
        training={
            "num_train_epochs": None,
            "max_steps": 5,
            "warmup_steps": None,
            "warmup_ratio": 0.3,
        }
    ).training
    assert StepPlan.of(capped, 10) == StepPlan(10, 3, 5, 2)


def test_every_epoch_has_all_rows_in_an_order_of_its_own():
    first, again, second = epoch_order(50, 1, 0), epoch_order(50, 1, 0), epoch_order(50, 1, 1)
    assert first == again
    assert first != second
    assert sorted(first) == sorted(second) == list(range(50))
