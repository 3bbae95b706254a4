"""Label probabilities against a plain reference, in float32, on three families."""

import math

import pytest
import torch

from tests.worker.conftest import FAMILIES
from worker.scoring import labels
from worker.scoring.labels import Item, common_length, score
from worker.scoring.predictions import predicted

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
