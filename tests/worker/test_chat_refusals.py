"""A chat that the model's template refuses is the row's fault, and said so before training."""

import json
import random

import pytest

from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_FAILED
from tests.support.model_variants import variant
from tests.support.train_jobs import TEMPLATE, make_job, rows, run, spec
from worker.data.rows import Row
from worker.data.tokenize import Prompts, Tokens

ALTERNATING = (
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_row(number: int, roles: tuple[str, ...]) -> Row:
    chat = [{"role": role, "content": f"turn {index}"} for index, role in enumerate(roles)]
    return Row(f"train-{number}", None, chat, None, None, None, None, "train")


@pytest.fixture
def prompts(load) -> Prompts:
    _, tokenizer = load("llama")
    tokenizer.chat_template = ALTERNATING
    return Prompts(Tokens(tokenizer, 128), TEMPLATE, None)


def test_the_row_the_turns_and_the_templates_words_are_named(prompts):
    with pytest.raises(ProgramFailure) as failure:
        prompts.example(chat_row(7, ("user", "user", "assistant")), [])
    assert failure.value.reason == "invalid_data"
    assert failure.value.detail.startswith(
        "Row train-7 of the train split: the chat template of the base model refuses its turns "
        "(user, user): user and assistant must take turns. Change the turns"
    )


def test_any_chat_is_an_example_or_refused(prompts):
    """Whatever the order of its turns."""
    generator = random.Random(3)
    for number in range(60):
        roles = (
            *generator.choices(("system", "user", "assistant"), k=generator.randrange(4)),
            "assistant",
        )
        # A first system turn is put before the user's text where the template refuses it.
        turns = roles[1:] if roles[:2] == ("system", "user") else roles
        row = chat_row(number, roles)
        if all((role == "user") == (index % 2 == 0) for index, role in enumerate(turns)):
            assert prompts.example(row, []) is not None
            continue
        with pytest.raises(ProgramFailure) as failure:
            prompts.example(row, [])
        assert failure.value.reason in ("invalid_data", "invalid_spec")
        assert f"Row {row.id} " in failure.value.detail or "chat template" in failure.value.detail


@pytest.mark.parametrize(
    "statement",
    [
        "{{ raise_exception('refused') }}",
        "{{ m['content'] + 1 }}",
        "{{ m.nothing.at_all }}",
        "{{ 1 / 0 }}",
        "{{ m['content'](1) }}",
        "{{ m['content'].__class__.__mro__ }}",
        "{{ m['content'] | replace(1) }}",
        "{% for n in range(10**9) %}{% endfor %}",
    ],
)
def test_whatever_a_template_raises_is_not_a_fault_of_fairtunes_own(load, statement):
    _, tokenizer = load("llama")
    # Only in a chat of three turns, so that no check at the start sees it.
    tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.index0 == 2 %}"
        + statement
        + "{% endif %}{{ m['role'] + m['content'] }}{% endfor %}"
    )
    prompts = Prompts(Tokens(tokenizer, 128), TEMPLATE, None)
    row = chat_row(1, ("user", "assistant", "user", "assistant"))
    with pytest.raises(ProgramFailure) as failure:
        prompts.example(row, [])
    assert failure.value.reason == "invalid_data"
    assert "Row train-1" in failure.value.detail


def test_a_run_ends_before_training(models_dir, tmp_path):
    model = variant(models_dir / "tiny-llama", tmp_path / "models" / "tiny-llama")
    (model / "chat_template.jinja").write_text(ALTERNATING)
    dataset = rows(6, 0, 2)
    for number, row in enumerate(dataset):
        chat = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": "yes"}]
        if number == 4:
            chat.insert(0, {"role": "user", "content": "before"})
        row |= {"text": None, "label": None, "messages": json.dumps(chat)}
    job = make_job(tmp_path / "job", tmp_path / "models", spec(), dataset)
    status, emitted = run(job)
    assert (status, emitted[-1].reason) == (EXIT_FAILED, "invalid_data")
    assert "Row train-4 of the train split" in emitted[-1].detail
    assert "training" not in {event.phase for event in emitted if event.type == "phase"}
