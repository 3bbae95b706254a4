"""A row's text is never read as a control token, whatever flags the tokenizer's tokens have."""

import copy
import json
import random

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers

from service.domain.errors import ProgramFailure
from tests.support.tokenizer_shapes import SHAPES, TEMPLATES
from tests.support.train_jobs import TEMPLATE, WORDS, sentence
from worker.data.rows import Row
from worker.data.tokenize import Prompts, Tokens

LABELS = ["hate", "normal"]
SPELLINGS = [
    "<s>",
    "</s>",
    "<S>",
    "</S>",
    "< s >",
    "<unk>",
    "\uff1cs\uff1e",
    "<|im_end|>",
    "<|IM_END|>",
]
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


@pytest.fixture(scope="module")
def tokenizers():
    return {name: make() for name, make in SHAPES.items()}


def encoded(prompts, text):
    return prompts.encode(Row("r", text, None, None, None, None, None, "test"), LABELS)


def with_random_flags(tokenizer, chance):
    """Give special tokens random flags, and the tokenizer perhaps another normalizer."""
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in layout["added_tokens"]:
        if token["special"]:
            token |= {flag: chance.random() < 0.3 for flag in FLAGS}
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(layout))
    others = (None, normalizers.NFKC(), normalizers.Lowercase(), normalizers.Prepend("▁"))
    if (other := chance.choice(others)) is not None:
        tokenizer._tokenizer.normalizer = other


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_frame_alone_has_control_tokens_under_any_flags(tokenizers, shape, seed):
    chance = random.Random(seed)
    tokenizer = copy.deepcopy(tokenizers[shape])
    with_random_flags(tokenizer, chance)
    tokenizer.chat_template = TEMPLATES[
        ("turns", "end of text after each turn", "end of text between turns")[seed]
    ]
    tokens = Tokens(tokenizer, 4096)
    prompts = Prompts(tokens, TEMPLATE, None)
    controls = set(tokens.encoder.controls.values()) - {tokenizer.unk_token_id}
    plain = encoded(prompts, "good soup")
    of_frame = [index for index in plain.prompt if index in controls]
    for _ in range(25):
        pieces = [
            chance.choice([*SPELLINGS, *WORDS, "é", "\n"]) + chance.choice(["", " "])
            for _ in range(chance.randint(1, 8))
        ]
        text = "".join(pieces) + chance.choice(WORDS)
        row = encoded(prompts, text)
        assert [index for index in row.prompt if index in controls] == of_frame, text
        assert row.answers == plain.answers, text
        assert tokens.encoder._nonce not in tokens.decode(row.prompt).replace(" ", "")


@pytest.mark.parametrize(
    ("normalizer", "text"),
    [(normalizers.NFKC(), "a \uff1c/s\uff1e b"), (normalizers.Lowercase(), "a </S> b")],
)
def test_text_that_is_a_control_token_once_normalized_is_spelled_out(tokenizers, normalizer, text):
    """Unigram finds any text of its vocabulary, that of special tokens included."""
    tokenizer = copy.deepcopy(tokenizers["Unigram"])
    tokenizer._tokenizer.normalizer = normalizer
    assert tokenizer.eos_token_id in tokenizer(text)["input_ids"]
    tokenizer.chat_template = TEMPLATES["turns"]
    prompt = Tokens(tokenizer, 512).prompt([{"role": "user", "content": text}])
    assert tokenizer.eos_token_id not in prompt


def test_a_mark_of_the_vocabulary_that_the_chat_template_writes_is_a_control_token(tokenizers):
    """Although neither its flag nor its place in the vocabulary says so."""
    tokenizer = copy.deepcopy(tokenizers["vocabulary among the added tokens"])
    tokenizer.chat_template = (
        "{% for m in messages %}<table>{{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<table>assistant: {% endif %}"
    )
    mark, bold = tokenizer.convert_tokens_to_ids(["<table>", "<b>"])
    prompt = Tokens(tokenizer, 512).prompt([{"role": "user", "content": "a <table> in <b>bold"}])
    assert prompt.count(mark) == 2
    assert bold in prompt


def test_control_tokens_that_the_tokenizer_names_are_control_tokens(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["byte-level"])
    tokenizer.add_tokens([AddedToken("lockdown")])
    tokenizer.chat_control_tokens = ["lockdown"]
    tokenizer.chat_template = TEMPLATES["turns"]
    prompt = Tokens(tokenizer, 512).prompt([{"role": "user", "content": "the lockdown now"}])
    assert tokenizer.convert_tokens_to_ids("lockdown") not in prompt


@pytest.mark.parametrize("limit", [100, 150])
def test_a_long_text_of_control_tokens_is_cut_no_more_than_needed(tokenizers, limit):
    tokenizer = tokenizers["byte-level"]
    tokenizer.chat_template = TEMPLATES["turns"]
    tokens = Tokens(tokenizer, limit)
    row = encoded(Prompts(tokens, TEMPLATE, None), "<|im_end|>" * 200 + sentence(3, 50))
    used = len(row.prompt) + max(map(len, row.answers))
    assert limit - 12 < used <= limit


def test_a_text_that_the_tokenizer_fails_on_is_named(tokenizers):
    tokenizer = tokenizers["byte-level"]
    tokenizer.chat_template = TEMPLATES["turns"]
    prompts = Prompts(Tokens(tokenizer, 512), TEMPLATE, None)
    with pytest.raises(ProgramFailure) as failure:
        encoded(prompts, "half of \ud83d an emoji")
    assert failure.value.reason == "invalid_data"
    assert "Row r of the test split: the tokenizer of the base model fails on it" in (
        failure.value.detail
    )


def test_a_panic_of_the_tokenizer_is_a_failure_of_the_row(tokenizers):
    class PanicException(BaseException):
        pass

    class Panicking:
        normalizer = None

        def encode(self, *_args, **_options):
            raise PanicException("byte index 1 is not a char boundary")

    tokenizer = tokenizers["byte-level"]
    tokenizer.chat_template = TEMPLATES["turns"]
    prompts = Prompts(Tokens(tokenizer, 512), TEMPLATE, None)
    prompts.tokens.encoder._backend = Panicking()
    with pytest.raises(ProgramFailure) as failure:
        encoded(prompts, "text")
    assert "byte index 1 is not a char boundary" in failure.value.detail
