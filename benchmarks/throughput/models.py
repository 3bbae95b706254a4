"""Benchmark models: the bundled one, or a Llama with random weights for a GPU."""

import shutil
from pathlib import Path
from typing import Any

from service.domain.base_models import BUNDLED_MODEL
from worker.modeling.locate import locate

RANDOM: dict[str, dict[str, Any]] = {
    # The published shapes of Llama 3.2 (config.json of the 1B and the 3B model).
    "random-llama-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "random-llama-3b": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
_VOCABULARY = 128_256


def provide(name: str, models_dir: Path) -> None:
    """Provide the model below `models_dir`, created or converted once. Raises ProgramFailure."""
    if name in RANDOM and not (models_dir / name / "config.json").is_file():
        _make(name, models_dir)
        return
    located = locate(name, models_dir)
    if located != models_dir / name:  # in the hub's cache: all systems read the same files
        (models_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (models_dir / name).symlink_to(located)


def _make(name: str, models_dir: Path) -> None:
    """Create a model with random bfloat16 weights and the bundled model's tokenizer.

    That suffices to measure speed and memory. The tokenizer's ids are a part of the vocabulary,
    which has its published size, and so the published cost of logits.
    """
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = locate(BUNDLED_MODEL, models_dir)
    config = LlamaConfig(
        **RANDOM[name],
        vocab_size=_VOCABULARY,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        dtype="bfloat16",
    )
    staging = models_dir / f".{name}.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model.save_pretrained(staging)
    for path in tokenizer.iterdir():
        if path.name.startswith(("tokenizer", "chat_template", "special_tokens")):
            shutil.copy(path, staging)
    staging.rename(models_dir / name)
