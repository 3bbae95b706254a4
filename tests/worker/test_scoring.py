"""Label probabilities against a plain reference, in float32, on three families."""

import math

import pytest
import torch
from tiny_models import FAMILIES

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.scoring import labels, prefill
from worker.scoring.labels import Item, score
from worker.scoring.predictions import predicted
from worker.scoring.prefill import common_length

CPU = torch.device("cpu")

# A shared beginning, ends of several lengths, the third label's end holding the first one's start.
ANSWERS = [[50, 51, 60, 61, 2], [50, 51, 70, 2], [50, 51, 60, 62, 63, 64, 2]]


def reference(model, item):
    """Probabilities by one forward pass per label over prompt and whole answer."""
    sums = []
    for answer in item.answers:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([item.prompt + answer])).logits[0].double()
        log_probs = logits.log_softmax(-1)
        first = len(item.prompt)
        sums.append(sum(log_probs[first + k - 1, token].item() for k, token in enumerate(answer)))
    top = max(sums)
    weights = [math.exp(value - top) for value in sums]
    return [weight / sum(weights) for weight in weights]


def items(shared: int, count: int = 9) -> list[Item]:
    generator = torch.Generator().manual_seed(3)

    def ids(length: int) -> list[int]:
        return torch.randint(10, 400, (length,), generator=generator).tolist()

    prefix = ids(shared)
    return [Item(prefix + ids(1 + 5 * n % 23), ANSWERS) for n in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 14])
def test_probabilities_equal_the_plain_reference(load, family, shared):
    model, _ = load(family)
    given = items(shared)
    said: list[str] = []
    scored = score(model, given, pad=0, token_budget=64, device=CPU, fell_back=said.append)
    assert said == []  # the fast way was taken
    for item, values in zip(given, scored, strict=True):
        assert values == pytest.approx(reference(model, item), abs=1e-5)
        assert sum(values) == pytest.approx(1)


def test_a_wrong_sliding_window_is_noticed_and_the_plain_way_taken(load, monkeypatch):
    model, _ = load("gpt_oss")
    honest = prefill.masks

    def full_everywhere(*arguments):
        made = honest(*arguments)
        return dict.fromkeys(made, made["full_attention"])

    monkeypatch.setattr(labels, "masks", full_everywhere)
    monkeypatch.setattr(prefill, "masks", full_everywhere)
    said: list[str] = []
    given = items(14)
    scored = score(model, given, pad=0, token_budget=64, device=CPU, fell_back=said.append)
    assert len(said) == 1
    for item, values in zip(given, scored, strict=True):
        assert values == pytest.approx(reference(model, item), abs=1e-5)


def test_no_likelihood_that_is_not_a_number_becomes_a_score(load):
    model, _ = load("llama")
    with torch.no_grad():
        model.lm_head.weight[60] = float("nan")
    with pytest.raises(ProgramFailure) as failure:
        score(model, items(0, 1), pad=0, token_budget=64, device=CPU)
    assert failure.value.reason == FailureReason.DIVERGED


@pytest.mark.parametrize(
    ("sequences", "length"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 4]], 2), ([[1], [2]], 0), ([[5, 6]], 2)],
)
def test_common_length(sequences, length):
    assert common_length(sequences) == length


def test_a_tie_goes_to_the_first_label_in_sorted_order():
    assert predicted(["normal", "hate"], [0.5, 0.5]) == "hate"
    assert predicted(["hate", "normal"], [0.4, 0.6]) == "normal"
