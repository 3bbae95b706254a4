"""Label probabilities against a plain reference, in float32, on three families."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from tests.support.tiny_models import EACH_FAMILY
from worker.data.prefixes import common_length
from worker.scoring import attention, labels, prefill
from worker.scoring.labels import Item, score
from worker.scoring.predictions import predicted_label
from worker.scoring.trie import Trie

CPU = torch.device("cpu")

# A shared prefix, ends of several lengths, the third label's end holding the first one's start.
ANSWERS = [[50, 51, 60, 61, 2], [50, 51, 70, 2], [50, 51, 60, 62, 63, 64, 2]]

SETS = {
    "two": ANSWERS[:2],
    "three": ANSWERS,
    "one token": [[60], [61], [62]],
    "nothing shared": [[60, 61, 2], [70, 71, 72, 2]],
    "only one": [[60, 61, 2]],
    "alike": [[60, 61, 2], [60, 61, 2], [70, 2]],
    "one begins another": [[60, 61], [60, 61, 62, 63], [60, 70], [60]],
    # Branches that part again and again, longer than the window of the tiny gpt-oss.
    "many": [
        [50, 51, *(60 + (number >> bit & 1) for bit in range(5)), *range(70, 70 + number % 13), 2]
        for number in range(24)
    ],
}


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


def items(shared: int, count: int = 9, answers: list[list[int]] = ANSWERS) -> list[Item]:
    generator = torch.Generator().manual_seed(3)

    def ids(length: int) -> list[int]:
        return torch.randint(10, 400, (length,), generator=generator).tolist()

    prefix = ids(shared)
    return [Item(prefix + ids(1 + 5 * n % 23), answers) for n in range(count)]


def agree(model, some):
    """That the fast way is taken and gives the reference's figures."""
    reasons: list[str] = []
    scored = score(model, some, pad=0, token_budget=64, device=CPU, on_fallback=reasons.append)
    assert reasons == []
    for item, values in zip(some, scored, strict=True):
        assert values == pytest.approx(reference(model, item), abs=1e-5)
        assert sum(values) == pytest.approx(1)


@pytest.mark.parametrize("family", EACH_FAMILY)
@pytest.mark.parametrize("shared", [0, 14])
@pytest.mark.parametrize("answers", SETS.values(), ids=SETS)
def test_probabilities_equal_the_plain_reference(load, family, shared, answers):
    model, _ = load(family)
    agree(model, items(shared, 5 if len(answers) > 3 else 9, answers))


@pytest.mark.parametrize("family", EACH_FAMILY)
@pytest.mark.parametrize("at_once", [1, attention.MAX_BLOCK_SCORES])
def test_every_family_attends_in_the_quick_way_and_as_before_afterwards(
    load, family, at_once, monkeypatch
):
    model, _ = load(family)
    before = model.config._attn_implementation
    monkeypatch.setattr(labels, "default_attention", None)  # to call it would be an error
    monkeypatch.setattr(attention, "MAX_BLOCK_SCORES", at_once)  # one row at a time, or all
    agree(model, items(14))
    assert model.config._attn_implementation == before != attention.NAME


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
@pytest.mark.parametrize("shared", [0, 14])
def test_attention_that_is_not_known_stays_the_models_own(load, family, shared, monkeypatch):
    model, _ = load(family)
    before = model.config._attn_implementation
    forward = type(model).forward

    def capped(self, *arguments, **more):
        if self.config._attn_implementation == attention.NAME:
            more["softcap"] = 30.0
        return forward(self, *arguments, **more)

    monkeypatch.setattr(type(model), "forward", capped)
    agree(model, items(shared))
    assert model.config._attn_implementation == before


def test_quick_attention_that_errs_is_noticed_and_the_models_own_taken(load, monkeypatch):
    model, _ = load("llama")
    honest = attention.attend

    def forgetful(*arguments, **more):
        out, _ = honest(*arguments, **more)
        return out * 0.5, None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, attention.NAME, forgetful)
    agree(model, items(14))


def test_rows_with_other_answers_than_the_rest_are_scored_by_their_own(load):
    model, _ = load("qwen3")
    several = [ANSWERS, [[80, 2], [81, 2], [82, 83, 2]]]
    agree(model, [Item(item.prompt, several[n % 2]) for n, item in enumerate(items(14))])


tokens = st.integers(10, 14)  # few, so that answers share a lot
some_answers = st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=8)


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_random_tries_equal_the_plain_reference(load, family):
    model, _ = load(family)

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(some_answers, st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=3))
    def check(answers, prompts):
        agree(model, [Item(prompt, answers) for prompt in prompts])

    check()


@given(some_answers)
def test_a_trie_holds_its_answers_and_each_node_once(answers):
    trie = Trie.of(answers)
    words = [()]  # of the fork and the nodes: what leads there, found by depth and order alone
    for token, depth in zip(trie.tokens, trie.depths, strict=True):
        last = words[-1][:depth]
        assert len(last) == depth
        words.append((*last, token))
    assert len(set(words)) == len(words)
    for node, word in enumerate(words[1:], 1):
        inside = range(node + 1, node + 1 + trie.below[node - 1])
        assert [
            k for k, word_below in enumerate(words) if k != node and word_below[: len(word)] == word
        ] == [*inside]
    for answer, path in zip(answers, trie.paths, strict=True):
        end = [trie.steps[step] for step in path]
        assert trie.shared + [token for _, token in end] == answer
        for (node, token), (following, _) in pairwise(end):
            assert words[following] == (*words[node], token)
        assert [node for node, _ in end[:1]] in ([], [0])


def test_what_labels_share_is_read_once_and_their_last_tokens_not_at_all():
    trie = Trie.of([[1, 2, 3, 9], [1, 2, 4, 9], [1, 5, 9]])
    assert trie.shared == [1]
    assert trie.tokens == [2, 3, 4, 5]
    assert len(trie.steps) == 7


@pytest.mark.parametrize("sees", ["other branches", "not those above"])
def test_a_wrong_tree_is_noticed_and_the_plain_way_taken(load, monkeypatch, sees):
    model, _ = load("llama")
    honest = Trie.of

    def wrong(answers):
        trie = honest(answers)
        trie.below[:] = [100 if sees == "other branches" else 0] * len(trie.below)
        return trie

    monkeypatch.setattr(Trie, "of", wrong)
    reasons: list[str] = []
    some = items(14)
    scored = score(model, some, pad=0, token_budget=64, device=CPU, on_fallback=reasons.append)
    assert len(reasons) == 1
    for item, values in zip(some, scored, strict=True):
        assert values == pytest.approx(reference(model, item), abs=1e-5)


def test_a_wrong_sliding_window_is_noticed_and_the_plain_way_taken(load, monkeypatch):
    model, _ = load("gpt_oss")
    honest = prefill.masks

    def full_everywhere(*arguments):
        masks = honest(*arguments)
        return dict.fromkeys(masks, masks["full_attention"])

    monkeypatch.setattr(labels, "masks", full_everywhere)
    monkeypatch.setattr(prefill, "masks", full_everywhere)
    reasons: list[str] = []
    some = items(14)
    scored = score(model, some, pad=0, token_budget=64, device=CPU, on_fallback=reasons.append)
    assert len(reasons) == 1
    for item, values in zip(some, scored, strict=True):
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
    assert predicted_label(["normal", "hate"], [0.5, 0.5]) == "hate"
    assert predicted_label(["hate", "normal"], [0.4, 0.6]) == "normal"
