"""Tiny models, one set for all tests of the worker."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is loaded: see worker.programs.program.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from tiny_models import make_models


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with tiny-llama, tiny-qwen3 and tiny-gpt_oss, float32."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def load(models_dir: Path) -> Callable[[str], tuple[Any, Any]]:
    """A fresh float32 model of a family, in evaluation mode, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def loaded(family: str) -> tuple[Any, Any]:
        directory = models_dir / f"tiny-{family}"
        model = AutoModelForCausalLM.from_pretrained(directory)
        return model.eval(), AutoTokenizer.from_pretrained(directory)

    return loaded
