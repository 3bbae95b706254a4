"""Variants of the tiny models with one thing wrong, and tiny models of further architectures."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.tiny_models import SHAPE


def variant(source: Path, target: Path) -> Path:
    """Copy a model directory; return the copy."""
    shutil.copytree(source, target)
    return target


def edit_json(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_tokenizer(directory: Path, change: Any) -> None:
    """Load the tokenizer, apply `change` to it, and save it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    change(tokenizer)
    tokenizer.save_pretrained(directory)


_GPT2_SHAPE = {"vocab_size": 400, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
_BERT_SHAPE = {
    key: SHAPE[key]
    for key in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    )
} | {"max_position_embeddings": 514}

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2_SHAPE,
    "bloom": {"vocab_size": 400, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mpt": {"vocab_size": 400, "d_model": 64, "n_layers": 2, "n_heads": 4},
    "opt": _BERT_SHAPE | {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "rwkv": {"vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2},
    "mamba": {"vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
    "openai-gpt": _GPT2_SHAPE,
    "bert": _BERT_SHAPE,
    "roberta": _BERT_SHAPE,
    "electra": _BERT_SHAPE | {"embedding_size": 64},
}
"""Sizes by model type, as transformers names it."""


def make_model(kind: str, directory: Path, tokenizer_of: Path, std: float = 0.15) -> Path:
    """Save a random model of that type, with the tokenizer of another directory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind], **special))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=std)
    model.save_pretrained(directory)
    for path in tokenizer_of.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, directory)
    return directory
