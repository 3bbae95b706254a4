"""A chat that the model's template refuses is the row's fault, and said so before training."""

import json
import random

import pytest

from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_FAILED
from tests.support.model_variants import variant
from tests.support.train_jobs import TEMPLATE, make_job, rows, run, spec
from worker.data.chat_refusals import ChatRefusals, chat_refusal
from worker.data.rows import Row
from worker.data.tokenize import Prompts, Tokens

LABELS = ["hate", "normal"]

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
    with (
        pytest.raises(ProgramFailure) as failure,
        chat_refusal(row := chat_row(7, ("user", "user", "assistant"))),
    ):
        prompts.example(row, [])
    assert failure.value.reason == "invalid_data"
    assert failure.value.detail.startswith(
        "Row train-7 of the train split: the base model's chat template refuses its chat "
        "(user, user, assistant): user and assistant must take turns. Change the turns"
    )


def test_any_chat_is_an_example_or_refused(prompts):
    """Whatever the order of its turns; and all refused rows are named at once."""
    generator = random.Random(3)
    refusals, refused = ChatRefusals(), []
    for number in range(60):
        roles = (
            *generator.choices(("system", "user", "assistant"), k=generator.randrange(4)),
            "assistant",
        )
        alternating = all((role == "user") == (n % 2 == 0) for n, role in enumerate(roles))
        # A first system turn is put before the user's text where the template refuses it.
        rest = roles[1:]
        if roles[0] == "system" and rest[:1] == ("user",):
            alternating = all((role == "user") == (n % 2 == 0) for n, role in enumerate(rest))
        row, example = chat_row(number, roles), None
        with refusals.collected(row):
            example = prompts.example(row, [])
        assert (example is not None) == alternating, roles
        if not alternating:
            refused.append(row.id)
    with pytest.raises(ProgramFailure) as failure:
        refusals.check()
    assert failure.value.detail.startswith(f"Row {refused[0]} of")
    assert f"So are {len(refused) - 1} other rows: {', '.join(refused[1:5])} and" in (
        failure.value.detail
    )


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
    with pytest.raises(ProgramFailure) as failure, chat_refusal(row):
        prompts.example(row, [])
    assert failure.value.reason == "invalid_data"
    assert "Row train-1" in failure.value.detail


def test_a_prompt_that_is_refused_is_the_models_fault(load):
    _, tokenizer = load("llama")
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    row = Row("train-0", "text", None, "hate", None, None, None, "train")
    with pytest.raises(ProgramFailure) as failure, chat_refusal(row):
        Prompts(Tokens(tokenizer, 128), TEMPLATE, None).example(row, LABELS)
    assert failure.value.reason == "invalid_spec"
    assert "base_model: its chat template refuses the prompt (never; row train-0)" in (
        failure.value.detail
    )


def test_other_errors_remain_what_they_are():
    row = chat_row(1, ("user", "assistant"))
    with pytest.raises(ZeroDivisionError), chat_refusal(row):
        1 / 0  # noqa: B018


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
