"""Failures of a model directory: a clear reason, the file and the remedy, instead of an exception.

Libraries raise whatever they like on files that are damaged or do not belong together. All of that
is `model_unavailable`: the user can restore the files, and another attempt would end the same way.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import ProgramFailure, first_line
from service.domain.states import FailureReason
from worker.runtime.disk_errors import is_full
from worker.runtime.out_of_memory import is_out_of_memory

CONFIG, TOKENIZER, WEIGHTS = (
    "config.json",
    "its tokenizer (tokenizer.json, tokenizer_config.json)",
    "its weights (*.safetensors, described by config.json and generation_config.json)",
)
"""Sources of a failure, as a message names them."""

RESTORE = "Download the model's files again, or use another model"

_MAX_LENGTH = 300

_GPU_ERRORS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "NVIDIA driver", "NCCL error")
"""Parts of messages of a GPU's driver and libraries."""

_SELF_EXPLANATORY = (OSError, ValueError, ImportError)
"""Exceptions whose message is a sentence. That of a KeyError, say, is just a key."""


def unavailable(name: str, problem: str, remedy: str = RESTORE) -> ProgramFailure:
    """Return the failure of the model `name`; `problem` starts with the file where possible."""
    return ProgramFailure(
        FailureReason.MODEL_UNAVAILABLE, f"{name} cannot be loaded: {problem}. {remedy}."
    )


@contextmanager
def reading(name: str, source: str, remedy: str = RESTORE) -> Iterator[None]:
    """Raise ProgramFailure(model_unavailable) for any exception of a library inside.

    `source` names the files being read. Errors of the machine and ProgramFailure propagate.
    """
    try:
        yield
    except ProgramFailure:
        raise
    except Exception as error:
        if is_of_machine(error):
            raise
        raise _failure(name, source, remedy, error) from error
    except BaseException as error:
        # A panic in the Rust code of tokenizers or safetensors is not an Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise _failure(name, source, remedy, error) from error


def is_of_machine(error: BaseException) -> bool:
    """Return True for full memory or disk and errors of a GPU, which no model is to blame for."""
    message = str(error)
    return (
        is_out_of_memory(error)
        or is_full(error)
        or any(mark in message for mark in _GPU_ERRORS)
        or type(error).__name__ == "AcceleratorError"
    )


def _failure(name: str, source: str, remedy: str, error: BaseException) -> ProgramFailure:
    message = str(error)
    if "trust_remote_code" in message or "custom code" in message:
        return unavailable(
            name,
            "config.json or tokenizer_config.json refers to Python code of the model's own "
            "(auto_map), which Fairtune never runs",
            "Use a model whose architecture is part of transformers",
        )
    if message.startswith("Unrecognized configuration class"):
        return ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"base_model: {name} is not a causal language model: {describe(error)}. Use a decoder, "
            "such as GPT-2, Llama, Qwen or SmolLM2.",
        )
    if "does not recognize this architecture" in message:
        remedy = "Install a newer transformers on the worker, or use another model"
    elif isinstance(error, ImportError):
        remedy = "Install what the message names on the worker, or use another model"
    return unavailable(name, f"{source} cannot be read ({describe(error)})", remedy)


def describe(error: BaseException) -> str:
    """Return an exception's message on one line, with its class unless the message is a sentence.

    The validation errors of configurations have the field on their first line, the fault on the
    second.
    """
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1].strip()}"[:_MAX_LENGTH].rstrip(". ")
    text = first_line(error).rstrip(". ")
    is_sentence = isinstance(error, _SELF_EXPLANATORY) or type(error) is Exception
    return text if is_sentence else f"{type(error).__name__}: {text}"
