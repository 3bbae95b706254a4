"""Tiny random models of three families, with a tokenizer trained on the tests' rows."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.train_jobs import TEMPLATE, rows

FAMILIES = ("llama", "qwen3", "gpt_oss")
EACH_FAMILY = ("llama", *(pytest.param(name, marks=pytest.mark.extended) for name in FAMILIES[1:]))
"""Values of a test's parameter: one family in `make test`, the others in `make test-all`."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def _tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [row["text"] for row in rows(60, 0, 0)]
    corpus += [TEMPLATE.user, str(TEMPLATE.system), 'system user assistant {"classification": "']
    corpus += ["hate_speech", "not_hate", '"}'] * 5
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(directory)


SHAPE = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _config(family: str) -> Any:
    from transformers import GptOssConfig, LlamaConfig, Qwen3Config

    if family == "llama":
        return LlamaConfig(**SHAPE)
    if family == "qwen3":
        return Qwen3Config(**SHAPE)
    # A window far shorter than the rows, so that a wrong mask shows.
    return GptOssConfig(
        **SHAPE,
        num_local_experts=2,
        num_experts_per_tok=1,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )


def make_models(directory: Path) -> Path:
    """Make tiny-llama, tiny-qwen3 and tiny-gpt_oss below `directory`, in float32; return it."""
    import torch
    from transformers import AutoModelForCausalLM

    for family in FAMILIES:
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(_config(family))
        with torch.no_grad():
            for parameter in model.parameters():
                # The usual initial scale gives nearly uniform answers, which would hide faults.
                if parameter.dim() >= 2:
                    parameter.normal_(std=0.15)
        model.save_pretrained(directory / f"tiny-{family}")
        _tokenizer(directory / f"tiny-{family}")
    return directory
