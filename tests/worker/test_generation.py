"""Answers written freely, against transformers' own greedy generation and by hand."""

import pytest
import torch

from tests.support.tiny_models import EACH_FAMILY
from worker.scoring import generation
from worker.scoring.generation import sample_answers
from worker.scoring.labels import Item
from worker.scoring.prefill import Prefix

CPU = torch.device("cpu")
LABELS = ["hate", "normal"]
ANSWERS = [[50, 51, 60, 2], [50, 51, 70, 2]]


def prompts(shared: int, count: int = 7) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)

    def ids(length: int) -> list[int]:
        return torch.randint(10, 400, (length,), generator=generator).tolist()

    prefix = ids(shared)
    return [prefix + ids(1 + 5 * n % 23) for n in range(count)]


def text(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def sample(model, items, scored=None, **options):
    return sample_answers(
        model,
        items,
        LABELS,
        scored or ["hate"] * len(items),
        **{
            "tokens_to_text": text,
            "pad": 0,
            "eos": 2,
            "device": CPU,
            "token_budget": 64,
            "confidence": 0.95,
        }
        | options,
    )


def written_by(monkeypatch, answers):
    """Have the model 'write' these, in the order of the sample."""
    monkeypatch.setattr(generation, "_generate", lambda *_: [list(ids) for ids in answers])
    monkeypatch.setattr(generation, "unsupported_reason", lambda _model: None)


@pytest.mark.parametrize("family", EACH_FAMILY)
@pytest.mark.parametrize("shared", [0, 14])
def test_answers_are_those_of_transformers_greedy_generation(load, family, shared):
    model, _ = load(family)
    prompt_ids = prompts(shared)
    expected = []
    for prompt in prompt_ids:
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=4 + generation.EXTRA_TOKENS,
            eos_token_id=2,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        expected.append(output[: output.index(2)] if 2 in output else output)
    items = [Item(prompt, ANSWERS) for prompt in prompt_ids]
    got = generation._generate(model, items, 0, 2, CPU, 64, lambda _done: None)
    assert got == expected
    # Each could have stopped by itself, so that the end of turn is seen to be heeded, too.
    eos = expected[0][3]
    shorter = generation._generate(model, items, 0, eos, CPU, 4096, lambda _done: None)
    assert shorter == [
        ids[: ids.index(eos)] if eos in ids else again
        for ids, again in zip(expected, shorter, strict=True)
    ]
    assert len(shorter[0]) <= 3


def test_what_counts_as_a_labels_answer(monkeypatch):
    items = [Item([10 + n], ANSWERS) for n in range(6)]
    written = [[50, 51, 60], [50, 51, 70], [50, 51], [50, 51, 60, 61], [], [50, 51, 70]]
    written_by(monkeypatch, written)
    format_sample = sample(None, items, ["hate", "hate", "hate", "hate", "hate", "normal"])
    assert format_sample.rows == 6
    assert (format_sample.outside.numerator, format_sample.outside.denominator) == (3, 6)
    assert format_sample.outside.lower < 0.5 < format_sample.outside.upper
    assert (format_sample.disagree.numerator, format_sample.disagree.denominator) == (1, 3)
    assert format_sample.examples == ("50 51", "50 51 60 61", "")


def test_white_space_around_an_answer_does_not_matter(monkeypatch):
    words = {50: "  {", 51: "}", 60: "hate", 70: "normal", 9: " \n"}
    items = [Item([10], ANSWERS)] * 2
    written_by(monkeypatch, [[9, 50, 51, 60, 9], [50, 9, 51, 60]])
    format_sample = sample(
        None, items, tokens_to_text=lambda ids: "".join(words[ids] for ids in ids)
    )
    assert format_sample.outside.numerator == 1  # white space within it does


def test_without_an_answer_of_a_labels_the_disagreement_is_unknown(monkeypatch):
    written_by(monkeypatch, [[8]] * 7)
    format_sample = sample(None, [Item([10], ANSWERS)] * 7)
    assert format_sample.disagree.value is None
    assert format_sample.disagree.reason
    assert format_sample.examples == ("8",)


def test_examples_are_few_short_and_storable(monkeypatch):
    written_by(monkeypatch, [[n] for n in range(9)])
    format_sample = sample(
        None, [Item([10], ANSWERS)] * 9, tokens_to_text=lambda ids: f"{ids}\0\ud800" + "x" * 500
    )
    assert len(format_sample.examples) == generation.MAX_EXAMPLES
    for example in format_sample.examples:
        assert len(example) <= generation.MAX_EXAMPLE_LENGTH
        assert "\0" not in example
        example.encode()


@pytest.mark.parametrize(
    ("there", "rows", "places"), [(100, 4, [0, 25, 50, 75]), (3, 32, [0, 1, 2])]
)
def test_rows_are_taken_at_equal_distances(monkeypatch, there, rows, places):
    first_ids = []

    def write(_model, items, *_):
        first_ids.extend(item.prompt[0] for item in items)
        return [[] for _ in items]

    monkeypatch.setattr(generation, "_generate", write)
    monkeypatch.setattr(generation, "unsupported_reason", lambda _model: None)
    format_sample = sample(None, [Item([n], ANSWERS) for n in range(there)], rows=rows)
    assert first_ids == places
    assert format_sample.rows == len(places)


def test_a_stop_is_heeded_within_a_token_and_the_model_stays_as_it_was(load):
    model, _ = load("gpt_oss")
    items = [Item(prompt, ANSWERS) for prompt in prompts(14)]
    state = torch.random.get_rng_state()
    done = []

    class StopSignal(Exception):
        pass

    def tick(number):
        done.append(number)
        if len(done) == 3:
            raise StopSignal

    with pytest.raises(StopSignal):
        sample(model, items, tick=tick)
    assert done == [0, 0, 0]
    assert not model.training
    assert torch.equal(state, torch.random.get_rng_state())
    done.append(0)
    sample(model, items, tick=done.append)
    assert done[-1] > 0  # rows of earlier batches


def test_a_model_that_takes_no_masks_gives_none_and_a_reason(load):
    model, _ = load("qwen3")
    model.config.layer_types = ["linear_attention"] * 2
    reasons = []
    assert sample(model, [Item([10, 11], ANSWERS)], on_skip=reasons.append) is None
    assert "linear_attention" in reasons[0]
    assert sample(model, [], on_skip=reasons.append) is None


def test_no_position_beyond_the_models_is_asked_for(load):
    model, _ = load("llama")
    model.config.max_position_embeddings = 20
    got = generation._generate(model, [Item([10] * 18, ANSWERS)], 0, 2, CPU, 64, lambda _done: None)
    assert len(got[0]) <= 2


def test_a_lent_prefix_is_not_copied_and_not_changed(load):
    model, _ = load("llama")
    prefix = Prefix.of(model, prompts(14), CPU)
    lent, again = prefix.cache_for(5), prefix.cache_for(5)
    assert lent.layers[0].keys.data_ptr() == again.layers[0].keys.data_ptr()
    lent.update(*(torch.zeros(5, 2, 3, 16) for _ in range(2)), 0)
    assert lent.get_seq_length() == prefix.length + 3
    assert again.get_seq_length() == prefix.length
