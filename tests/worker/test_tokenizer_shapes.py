"""Trained prompts are those that the model's own chat template serves, whatever the tokenizer."""

import random

import pytest

from service.domain.errors import ProgramFailure
from tests.support.tokenizer_shapes import SHAPES, TEMPLATES
from tests.support.train_jobs import TEMPLATE, WORDS
from worker.data.rows import Row
from worker.data.tokenize import Prompts, Tokens

LABELS = ["hate", "normal"]
PIECES = [
    *WORDS, "\n", "\n\n", "  ", "    ", "\t", " ", "<b>", "</b>", "<table>", "é", "ñandú", "漢字",
    "😡🏻", "\u200b", "\xa0", "e\u0301", "ﬁ", '"', "'", "{", "}}", "{{", "{%", "%}", "[", "]",
    "#tag", "@user", "http://x.org/?a=b&c", "...", "▁", "Ġ", "$text", "$label", "1.0", "-",
]  # fmt: skip
MARKS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"]


def texts(number, pieces=PIECES):
    chance = random.Random(number)
    yield from ("", " ", "plain words", " spaces around \n", "\nfirst", "they come\nand go")
    for _ in range(number):
        yield "".join(
            chance.choice(pieces) + chance.choice(["", " ", " "])
            for _ in range(chance.randint(1, 12))
        )


@pytest.fixture(scope="module")
def tokenizer_of():
    made = {}

    def tokenizer(shape, template):
        if shape not in made:
            made[shape] = SHAPES[shape]()
        made[shape].chat_template = template
        return made[shape]

    return tokenizer


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_prompt_is_the_one_that_is_served(tokenizer_of, shape, template):
    if (shape, template) == ("word level", "upper case"):
        pytest.skip("all labels are unknown words then, which is refused")
    tokenizer = tokenizer_of(shape, TEMPLATES[template])
    tokens = Tokens(tokenizer, 4096)
    prompts = Prompts(tokens, TEMPLATE, None)
    for text in texts(40):
        row = Row("r", text, None, "hate", None, None, None, "train")
        example = prompts.example(row, LABELS)
        chat = tokens.template.adapt(prompts.chat(row))
        served = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert example.ids[: example.start] == served, text
        whole = tokenizer.apply_chat_template(
            [*chat, {"role": "assistant", "content": TEMPLATE.completion_for("hate")}],
            tokenize=True,
            return_dict=False,
        )
        length = len(example.ids) - 1
        assert example.ids[-1] == tokenizer.eos_token_id
        if whole[: len(served)] == served:
            assert example.ids[:length] == whole[:length], text
        elif shape != "word level":  # whose unknown words hide their letters
            # The served prompt is no part of the rendered chat; the answer follows it all the same.
            answer = tokens.decode(example.ids[example.start :])
            expected = tokenizer.decode(tokenizer(TEMPLATE.completion_for("hate"))["input_ids"])
            if template == "upper case":
                expected = expected.upper()
            # Its end may be one token with what the template puts behind it.
            assert _letters(expected)[:-2] in _letters(answer), text


def _letters(text):
    return "".join(text.split()).strip("▁")


@pytest.mark.parametrize("template", ["turns", "end of text after each turn", "trimmed"])
@pytest.mark.parametrize("shape", SHAPES)
def test_text_is_spelled_out_where_it_reads_as_a_control_token(tokenizer_of, shape, template):
    tokenizer = tokenizer_of(shape, TEMPLATES[template])
    tokens = Tokens(tokenizer, 4096)
    prompts = Prompts(tokens, TEMPLATE, None)
    controls = set(tokens.encoder.controls.values()) - {tokenizer.unk_token_id}

    def ids(text):
        return prompts.encode(Row("r", text, None, None, None, None, None, "test"), LABELS).prompt

    of_frame = [token for token in ids("plain words") if token in controls]
    frame = ids("never X bad")
    for text in texts(40, [*MARKS, *MARKS, "<|IM_START|>", "</S>", *PIECES]):
        assert [token for token in ids(text) if token in controls] == of_frame, text
        # What stands around the text is as it is around any other.
        mixed = ids(f"never {text} bad")
        assert mixed[:4] == frame[:4], text
        assert mixed[-4:] == frame[-4:], text


@pytest.mark.parametrize("shape", ["byte-level", "byte-level with unflagged marks"])
def test_spelled_out_text_decodes_to_itself(tokenizer_of, shape):
    tokenizer = tokenizer_of(shape, TEMPLATES["turns"])
    tokens = Tokens(tokenizer, 4096)
    for text in texts(80, [*MARKS, *PIECES]):
        prompt = tokens.prompt([{"role": "user", "content": text}])
        assert tokens.decode(prompt) == (
            f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        )


def test_words_that_were_added_are_text(tokenizer_of):
    tokenizer = SHAPES["byte-level"]()
    tokenizer.add_tokens(["lockdown", "    "])
    tokenizer.chat_template = TEMPLATES["turns"]
    chat = [{"role": "user", "content": "the lockdown    now"}]
    prompt = Tokens(tokenizer, 512).prompt(chat)
    assert prompt == tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.convert_tokens_to_ids("lockdown") in prompt


def answer_of(tokenizer, template):
    tokenizer.chat_template = TEMPLATES[template]
    tokens = Tokens(tokenizer, 512)
    row = Row("r", "never", None, "hate", None, None, None, "train")
    example = Prompts(tokens, TEMPLATE, None).example(row, LABELS)
    return tokens, tokens.decode(example.ids[example.start :])


@pytest.mark.parametrize(
    ("template", "before"),
    [
        ("opens a thought", "\n</think>\n\n"),
        ("opens a thought and renders it", "\n</think>\n\n"),
        ("renders an empty thought", "<think>\n\n</think>\n\n"),
        ("closes a thought in the prompt", ""),
        ("channels", "<|channel|>final<|message|>"),
        ("end of text between turns", "<|im_end|>assistant: "),
        ("instruction in the last user turn", " "),
    ],
)
def test_the_answer_begins_where_the_served_prompt_ends(tokenizer_of, template, before):
    tokenizer = SHAPES["byte-level with unflagged marks"]()
    tokens, answer = answer_of(tokenizer, template)
    assert answer == f'{before}{{"classification": "hate_speech"}}<|im_end|>'
    assert tokens.template.thought_opener == ("<think>" if template == "opens a thought" else None)


def test_an_instruction_in_the_last_user_turn_stays_there(tokenizer_of):
    """As in Mistral's templates: a chat server sends it so."""
    tokenizer = tokenizer_of("byte-level", TEMPLATES["instruction in the last user turn"])
    chat = [
        {"role": role, "content": f"{role} {number}"}
        for number, role in enumerate(("system", "user", "assistant", "user"))
    ]
    served = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert Tokens(tokenizer, 512).prompt(chat) == served


@pytest.mark.parametrize("source", ["\n  {{ %s }} ", "{%% set day = %s %%}\n{{ day }}"])
def test_a_fixed_date_is_the_only_difference_of_a_template_that_prints_it(tokenizer_of, source):
    rest = TEMPLATES["turns"]
    tokenizer = tokenizer_of("byte-level", source % "strftime_now('%d %B %Y, %H:%M')" + rest)
    chat = [{"role": "user", "content": "never"}]
    tokens = Tokens(tokenizer, 512)
    with_date = source % "'01 January 2025, 00:00'" + rest
    assert tokens.prompt(chat) == tokenizer.apply_chat_template(
        chat, chat_template=with_date, add_generation_prompt=True, return_dict=False
    )


@pytest.mark.parametrize(
    ("shape", "words"),
    [("word level", ("alpha", "beta")), ("WordPiece", ("Alpha", "alpha"))],
)
def test_labels_that_the_tokenizer_cannot_tell_apart_are_refused(tokenizer_of, shape, words):
    tokenizer = tokenizer_of(shape, TEMPLATES["end of text after each turn"])
    template = TEMPLATE.model_copy(update={"labels": dict(zip(LABELS, words, strict=True))})
    prompts = Prompts(Tokens(tokenizer, 512), template, None)
    row = Row("r", "never", None, "hate", None, None, None, "train")
    for encode in (prompts.encode, prompts.example):
        with pytest.raises(ProgramFailure) as failure:
            encode(row, LABELS)
        assert failure.value.reason == "invalid_spec"
        assert "the answers for the labels 'hate' and 'normal' are the same tokens" in (
            failure.value.detail
        )
