"""Comparison of trained prompts with those of the model's own chat template, before training."""

from collections.abc import Sequence

from worker.data.chat_template import FIXED_DATE, TemplateRefusal, new_turn
from worker.data.rows import Row, sample
from worker.data.tokenize import Prompts

ROWS_PER_SPLIT = 16
"""Rows of each split that are compared."""

_PARAGRAPHS = (
    "The tokenizer has no chat template: the turns are paragraphs with a blank line between them, "
    "and the answer follows on a new line. A chat server would send another prompt."
)
_SERVED = (
    "The prompt is what `tokenizer.apply_chat_template(chat, add_generation_prompt=True)` gives, "
    "which chat servers send by default."
)
_DATE = (
    "The chat template prints the current date. Training and scoring use a fixed one "
    f"({FIXED_DATE:%-d %B %Y}), so that results do not depend on the day; a chat server sends "
    "today's."
)
_NO_SYSTEM = (
    "The chat template takes no system turn: put the instruction before the text in the user's "
    "turn, with a blank line between them."
)
_WITHOUT_THINKING = (
    "With `enable_thinking=false` (in a request to vLLM or SGLang: "
    '`"chat_template_kwargs": {"enable_thinking": false}`) the prompt contains the empty thought, '
    "and the answer is the label's alone; the trained ids are the same."
)


def prompt_notes(prompts: Prompts, row: Row) -> list[str]:
    """Return sentences on how to send the prompt that rows like `row` are trained with.

    Raises ProgramFailure for a row that the chat template refuses.
    """
    template = prompts.tokens.template
    if template.is_absent:
        return [_PARAGRAPHS]
    notes = [_SERVED]
    chat = prompts.encode(row, []).chat
    adapted = template.adapt(chat)
    if len(adapted) < len(chat):
        notes.append(_NO_SYSTEM)
    if template.prints_date:
        notes.append(_DATE)
    notes += _thought_notes(prompts, adapted)
    return notes


def _thought_notes(prompts: Prompts, adapted: list[dict[str, str]]) -> list[str]:
    template = prompts.tokens.template
    prompt = template.prompt(adapted)
    answer = template.answer(adapted, prompt, "ANSWER")
    opening, _, _ = answer.partition("ANSWER")
    notes = []
    if template.thought_opener is not None:
        notes.append(
            f"The chat template opens a thought ({template.thought_opener}) at the end of the "
            "prompt: the model is trained to close it at once and to answer."
        )
    elif opening.strip():
        notes.append(
            f"The model is trained to begin its answer with {opening!r}, as the chat template "
            "renders the assistant's turn."
        )
    try:
        without = template.prompt(adapted, enable_thinking=False)
    except TemplateRefusal:
        return notes
    if without != prompt and (prompt + answer).startswith(without):
        notes.append(_WITHOUT_THINKING)
    return notes


def prompt_differences(prompts: Prompts, rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    """Return in what the ids of some rows differ from the tokenizer's own; empty if in nothing.

    Rows whose text spells a control token are left out: they differ on purpose. Raises
    ProgramFailure for a row that cannot be encoded.
    """
    tokens = prompts.tokens
    if tokens.template.is_absent:
        return []
    source = tokens.template.source
    checked, of_prompt, of_answer = 0, 0, 0
    for row in sample(rows, ROWS_PER_SPLIT):
        encoded = prompts.encode(row, labels)
        rendered = tokens.render(encoded.chat)
        adapted = tokens.template.adapt(encoded.chat)
        if rendered.chat != adapted:
            continue
        checked += 1
        served = tokens.tokenizer.apply_chat_template(
            adapted,
            chat_template=source,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        if served != encoded.prompt:
            of_prompt += 1
            continue
        for answer, ids in zip(prompts.answers(row, labels), encoded.answers, strict=True):
            turn = new_turn("assistant", answer)
            whole = tokens.tokenizer.apply_chat_template(
                [*adapted, turn], chat_template=source, tokenize=True, return_dict=False
            )
            trained = [*encoded.prompt, *ids[:-1]]
            if whole[: len(trained)] != trained:
                of_answer += 1
                break
    differences = []
    if of_prompt:
        differences.append(
            "The ids of the prompt differ from those of the model's own chat template in "
            f"{of_prompt} of {checked} rows."
        )
    if of_answer and tokens.template.thought_opener is None:
        differences.append(
            f"The ids of prompt and answer differ from those of the rendered chat in {of_answer} "
            f"of {checked} rows: the prompt is the served one, and the answer is encoded behind it."
        )
    return differences
