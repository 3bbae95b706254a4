"""Models whose masks, positions or layers differ from Llama's: each is trained and scored rightly.

What cannot be computed in one pass over padded or packed rows is computed row by row.
"""

import pytest
import torch

from service.domain.events import EXIT_DONE
from tests.support.model_variants import make_model
from tests.support.train_jobs import make_job, of_type, rows, run, spec, token_examples
from worker.data.tokenize import Example
from worker.modeling.load import load_base
from worker.scoring.labels import Item, score
from worker.training.padded import Padded, SingleRows, padding_mismatch_reason

CPU = torch.device("cpu")
WITHOUT_MASKS = ["bloom", "rwkv", pytest.param("mpt", marks=pytest.mark.extended)] + [
    pytest.param(kind, marks=pytest.mark.extended) for kind in ("openai-gpt", "mamba")
]
ALL = ["gpt2", *WITHOUT_MASKS, pytest.param("opt", marks=pytest.mark.extended)]


@pytest.fixture
def model(models_dir, tmp_path):
    def loaded(kind):
        directory = make_model(kind, tmp_path / kind, models_dir / "tiny-llama")
        return load_base(directory, spec(base_model=kind), CPU).model

    return loaded


def probabilities(model, item: Item) -> list[float]:
    """Probabilities of the answers from one forward pass each."""
    totals = []
    for answer in item.answers:
        logits = model(input_ids=torch.tensor([item.prompt + answer])).logits[0].double()
        logs = torch.log_softmax(logits, -1)[-len(answer) - 1 : -1]
        totals.append(sum(logs[place, token] for place, token in enumerate(answer)))
    return torch.softmax(torch.stack(totals), 0).tolist()


@pytest.mark.parametrize("kind", ALL)
@torch.no_grad()
def test_scores_are_those_of_one_pass_per_label(model, kind):
    causal, why = model(kind), []
    items = [Item(example.ids, [[5, 6, 7], [5, 8], [9, 6, 7, 2]]) for example in token_examples(4)]
    scores = score(causal, items, pad=0, token_budget=200, device=CPU, on_fallback=why.append)
    for item, values in zip(items, scores, strict=True):
        assert values == pytest.approx(probabilities(causal, item), abs=2e-4)
    assert bool(why) == (kind not in ("gpt2", "opt"))


@pytest.mark.parametrize("kind", ALL)
@torch.no_grad()
def test_rows_are_padded_only_where_padding_changes_nothing(model, kind):
    causal = model(kind)
    padded, single = (of(causal, "completion", 0, CPU) for of in (Padded, SingleRows))
    examples = token_examples(5)
    reason = padding_mismatch_reason(causal, padded, single, examples)
    assert (reason is not None) == (kind == "rwkv"), reason
    if reason is None:
        assert torch.allclose(padded.losses(examples), single.losses(examples), atol=1e-3)
    same_length = [Example([*range(10, 30)], 18), Example([*range(40, 60)], 17)]
    assert (reason is None) == (
        padding_mismatch_reason(causal, padded, single, same_length) is None
    )


@pytest.mark.parametrize("kind", WITHOUT_MASKS)
def test_a_run_falls_back_and_says_so(models_dir, tmp_path, kind):
    make_model(kind, tmp_path / "models" / kind, models_dir / "tiny-llama")
    run_spec = spec(
        base_model=kind,
        lora={"target_modules": "all-linear"},
        training={"num_train_epochs": 1},
    )
    job = make_job(tmp_path / "job", tmp_path / "models", run_spec, rows(8, 2, 4))
    status, emitted = run(job)
    assert status == EXIT_DONE, (job / "training.log").read_text()[-3000:]
    codes = {event.code for event in of_type(emitted, "warning")}
    assert "slow_scoring" in codes
    assert ("not_padded" in codes) == (kind == "rwkv")
