"""Tokenizers of the shapes that families of models have, and the shapes of their chat templates."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.tiny_models import CHAT_TEMPLATE
from tests.support.train_jobs import TEMPLATE, rows

_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
_LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?\"'{}_-<>|/[]()"]
_SPECIAL = ["<unk>", "<s>", "</s>"]


def _corpus() -> list[str]:
    texts = [row["text"] for row in rows(60, 0, 0)]
    return [*texts, TEMPLATE.user, str(TEMPLATE.system), *['{"classification": "hate_speech"}'] * 5]


def _fast(tokenizer: Any, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def _trained(pre_tokenizer: Any, **options: Any) -> Any:
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=_SPECIAL,
        initial_alphabet=[*_LETTERS, "▁", "\n"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def byte_level(prefix_space: bool = False) -> Any:
    """Byte-level BPE: GPT-2, Llama 3, Qwen, SmolLM2; with a prefix space: RoBERTa, older Falcon."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*_SPECIAL, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _fast(tokenizer, eos_token="<|im_end|>")


def with_unflagged_marks() -> Any:
    """Marks outside of the vocabulary that are not flagged as special, and runs of spaces: Qwen."""
    tokenizer = byte_level()
    tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "    "])
    return tokenizer


def metaspace(prepend: str) -> Any:
    """Metaspace with a mark before the first word or every piece: Mistral, TinyLlama, Zephyr."""
    from tokenizers import decoders, pre_tokenizers

    tokenizer = _trained(
        pre_tokenizers.Metaspace("▁", prepend_scheme=prepend, split=False), unk_token="<unk>"
    )
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme=prepend)
    return _fast(tokenizer)


def prepending_normalizer() -> Any:
    """A normalizer that puts a mark before each piece: Llama 2 and Phi-3 as first converted."""
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = _trained(pre_tokenizers.Split("\n", "isolated"), unk_token="<unk>", fuse_unk=True)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return _fast(tokenizer)


def with_vocabulary_tokens() -> Any:
    """Newlines, spaces and HTML tags are vocabulary and are added tokens as well: Gemma."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    tokenizer = _trained(
        pre_tokenizers.Split(" ", "merged_with_previous"), unk_token="<unk>", fuse_unk=True
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    layout = json.loads(tokenizer.to_str())
    vocabulary = layout["model"]["vocab"]
    for text in ("\n", "\n\n", "▁▁", "<b>", "</b>", "<table>"):
        vocabulary.setdefault(text, len(vocabulary))
        layout["added_tokens"].append({"id": vocabulary[text], "content": text} | _FLAGS)
    return _fast(Tokenizer.from_str(json.dumps(layout)))


def word_piece() -> Any:
    """WordPiece with lower-casing and special tokens that are normalized: BERT's shape."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=_SPECIAL, initial_alphabet=_LETTERS, show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _fast(tokenizer)


def unigram() -> Any:
    """Unigram, whose vocabulary contains the text of its special tokens: T5, XLM-R, Gemma 1."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=_SPECIAL,
        unk_token="<unk>",
        initial_alphabet=_LETTERS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _fast(tokenizer)


def word_level() -> Any:
    """Whole words of a vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _fast(tokenizer)


SHAPES: dict[str, Callable[[], Any]] = {
    "byte-level": byte_level,
    "byte-level with a prefix space": lambda: byte_level(prefix_space=True),
    "byte-level with unflagged marks": with_unflagged_marks,
    "Metaspace, first": lambda: metaspace("first"),
    "Metaspace, always": lambda: metaspace("always"),
    "Metaspace, never": lambda: metaspace("never"),
    "prepending normalizer": prepending_normalizer,
    "vocabulary among the added tokens": with_vocabulary_tokens,
    "WordPiece": word_piece,
    "Unigram": unigram,
    "word level": word_level,
}

_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}LAST{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\nPROMPT{% endif %}"
)
_ALTERNATION = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
)

TEMPLATES: dict[str, str | None] = {
    "turns": CHAT_TEMPLATE,
    "end of text after each turn": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
    "instructions without a system turn": (
        "{{ bos_token }}{% for m in messages %}"
        + _ALTERNATION
        + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    ),
    "trimmed": (
        "{{ bos_token }}{% for m in messages %}"
        + _ALTERNATION
        + "{% set who = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<start_of_turn>' + who + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "system turn left out in silence": (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "opens a thought": _TURNS.replace("LAST", "").replace("PROMPT", "<think>\n"),
    "opens a thought and renders it": _TURNS.replace("LAST", "<think>\n\n</think>\n\n").replace(
        "PROMPT", "<think>\n"
    ),
    "renders an empty thought": _TURNS.replace("LAST", "<think>\n\n</think>\n\n").replace(
        "PROMPT", ""
    ),
    "closes a thought in the prompt": _TURNS.replace("LAST", "").replace(
        "PROMPT", "<think>\n\n</think>\n\n"
    ),
    "channels": _TURNS.replace("LAST", "<|channel|>final<|message|>").replace("PROMPT", ""),
    "ignores add_generation_prompt": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    ),
    "role and content joined": (
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    "upper case": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | upper }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "end of text between turns": (
        "{% for m in messages %}{% if not loop.first %}{{ eos_token }}{% endif %}"
        "{{ m.role + ': ' + m.content }}{% endfor %}"
    ),
    "instruction in the last user turn": (
        "{{ bos_token }}{% for m in messages if m.role != 'system' %}"
        "{% if m.role == 'user' %}[INST] {% if loop.last and messages[0].role == 'system' %}"
        "{{ messages[0].content + '\n\n' }}{% endif %}{{ m.content }}[/INST]"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    ),
    "answers depend on contents": _TURNS.replace(
        "LAST", "{% if 'help' in messages[-2].content %}<think>\n\n</think>\n\n{% endif %}"
    ).replace("PROMPT", ""),
    "marked generation": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}{{ m.content }}<|im_end|>"
        "{% endgeneration %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "Llama 2": (
        "{% set first = 1 if messages[0].role == 'system' else 0 %}"
        "{% for m in messages[first:] %}{% if m.role == 'user' %}"
        "{{ bos_token + '[INST] ' }}{% if loop.first and first %}"
        "{{ '<<SYS>>\n' + messages[0].content.strip() + '\n<</SYS>>\n\n' }}{% endif %}"
        "{{ m.content.strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "JSON": (
        "{% for m in messages %}{{ m | tojson }}\n{% endfor %}"
        '{% if add_generation_prompt %}{{ \'{"role": "assistant", "content": "\' }}{% endif %}'
    ),
}
