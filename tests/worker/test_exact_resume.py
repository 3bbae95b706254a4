"""Stopped at any step and resumed from there, a run is the run that was never stopped."""

import random

import numpy
import pytest
import torch

from tests.support.fixed_predictions import ODD, choosing
from tests.support.train_jobs import make_trainer, spec, stop_at, token_examples
from worker.modeling.load import load_base
from worker.runtime.events import Stopped
from worker.training import checkpoints
from worker.training.shared_prefix.method import SharedPrefix

TIMED = {"eval_runtime", "eval_samples_per_second", "samples_per_second"}

STEPS = (1, 3, 4, 8)
"""3 steps are an epoch: 3 is due for evaluation, 4 for logging, 1 and 8 for neither alone."""


def outcome(run):
    """All that a run leaves in memory, but for what a clock measured."""
    state = run.state
    figures = [
        {name: value for name, value in entry.items() if name not in TIMED}
        for entry in state.log_history
    ]
    position = (state.step, state.stopped_early, state.stale, state.best_metric, state.best_step)
    position += (state.best_standing,)
    return checkpoints.adapter_tensors(run.model), figures, position, run.chosen_step


def assert_same(first, second):
    assert first[1:] == second[1:]
    assert first[0].keys() == second[0].keys()
    for name, tensor in first[0].items():
        assert torch.equal(tensor, second[0][name]), name


def assert_exact(tmp_path, make, steps=STEPS):
    """Compare an undisturbed run with runs resumed from each checkpoint by a new loop.

    The checkpoints are those of the undisturbed run, which was killed sometime later then, and
    those that it writes when it is stopped at each of the steps.
    """
    whole = make(tmp_path / "whole")
    whole.run()
    expected = outcome(whole)
    saved = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    for step in steps:
        part = make(tmp_path / f"part-{step}")
        stop_at(part, step)
        with pytest.raises(Stopped):
            part.run()
        saved.append(tmp_path / f"part-{step}" / "checkpoints" / f"checkpoint-{step}")
    for number, checkpoint in enumerate(saved):
        # Whatever stands in the generators by now must not matter.
        random.seed(number)
        numpy.random.seed(number)
        torch.manual_seed(number)
        resumed = make(tmp_path / f"rest-{number}")
        resumed.restore(checkpoints.read(checkpoint))
        resumed.run()
        assert_same(outcome(resumed), expected)
    return whole


def training(**fields):
    return spec(training={"num_train_epochs": 3, **fields})


def test_with_dropout_and_the_best_weights_at_the_end(load, tmp_path):
    run_spec = training(early_stopping_patience=2)
    assert_exact(
        tmp_path,
        lambda directory: make_trainer(
            load, directory, run_spec, token_examples(10), token_examples(3)
        ),
    )


@pytest.mark.extended
@pytest.mark.parametrize("best", [True, False])
def test_with_early_stopping_before_the_last_epoch(load, tmp_path, best):
    losses = {3: 1.0, 6: 0.5, 9: 0.7, 12: 0.6, 15: 0.1, 18: 0.1}
    run_spec = spec(
        training={
            "num_train_epochs": 6,
            "early_stopping_patience": 2,
            "load_best_model_at_end": best,
        }
    )

    def make(directory):
        run = make_trainer(load, directory, run_spec, token_examples(10), token_examples(3))
        run._evaluate = lambda: {"eval_loss": losses[run.state.step]}
        return run

    whole = assert_exact(tmp_path, make, (3, 6, 7, 9, 10, 12))
    assert (whole.state.step, whole.state.stopped_early) == (12, True)
    assert whole.chosen_step == (6 if best else 12)


@pytest.mark.extended
@pytest.mark.parametrize("cap", [0.25, 0.2])
def test_with_the_best_f1_within_the_caps(load, tmp_path, cap):
    """The best so far is within the cap, or none is; a later one is worse, and its loss less."""
    whole = assert_exact(
        tmp_path,
        lambda directory: choosing(
            load, directory, [{"group": ODD, "metric": "fpr", "max": cap}], min_f1=0.78
        ),
        (1, 3, 6, 7, 9),
    )
    assert whole.chosen_step == 6
    assert whole.state.best_standing.feasible == (cap == 0.25)


def test_with_4_bit_weights_bfloat16_and_gradient_checkpointing(models_dir, tmp_path):
    run_spec = spec(
        quantization={"load_in_4bit": True},
        training={"num_train_epochs": 3, "bf16": True, "gradient_checkpointing": True},
    )

    def load_4bit(family):
        base = load_base(models_dir / f"tiny-{family}", run_spec, torch.device("cpu"))
        assert base.coverage.share > 0
        return base.model, base.tokenizer

    assert_exact(
        tmp_path,
        lambda directory: make_trainer(
            load_4bit, directory, run_spec, token_examples(10), token_examples(3)
        ),
    )


@pytest.mark.extended
def test_with_adapters_on_experts(load, tmp_path):
    run_spec = spec(
        lora={
            "lora_dropout": 0.0,
            "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        },
        training={"num_train_epochs": 3},
    )
    whole = assert_exact(
        tmp_path,
        lambda directory: make_trainer(
            load, directory, run_spec, token_examples(10), token_examples(3), family="gpt_oss"
        ),
    )
    assert sum("experts" in name for name in checkpoints.adapter_tensors(whole.model)) == 8


def test_with_all_generators_drawn_from_in_every_forward_pass(load, tmp_path, monkeypatch):
    """Something in a model may use any of them; nothing of ours does."""
    loss_sum = SharedPrefix.loss_sum

    def noisy(*arguments):
        if not torch.is_grad_enabled():  # the check whether the model can be packed
            return loss_sum(*arguments)
        noise = random.random() + numpy.random.random() + torch.rand(()).item()
        return loss_sum(*arguments) * (1 + noise)

    monkeypatch.setattr(SharedPrefix, "loss_sum", noisy)
    # No validation: it is not trained on, and so draws nothing that must be repeatable.
    run_spec = training(eval_strategy="no", load_best_model_at_end=False)
    assert_exact(
        tmp_path, lambda directory: make_trainer(load, directory, run_spec, token_examples(10))
    )
