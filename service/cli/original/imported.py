"""Adapters and base models of local directories, as runs of a server."""

import hashlib
import json
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from service.cli.errors import ExitStatus, refuse
from service.cli.original.base_model import model_directory, refuse_path
from service.domain.digests import sha256_of

if TYPE_CHECKING:
    from fairtune import Client, Evaluation, Merge, Run

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_TRAINING_ARGS_FILE = "training_args.json"
_LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


class BaseModel(NamedTuple):
    """The base model of an adapter."""

    name: str | None
    """Name for the server; None: the one of adapter_config.json."""
    directory: Path | None
    """Local directory of the model, for a server that is started here."""


def adapter_directory(name: str, key: str) -> Path | None:
    """Return the directory if `name` is that of an adapter, else None. Exits if it is a pickle."""
    path = Path(name).expanduser()
    if not (path / CONFIG_FILE).is_file():
        return None
    if not (path / WEIGHTS_FILE).is_file():
        remedy = "save the adapter with peft's save_pretrained"
        if (path / "adapter_model.bin").is_file():
            remedy = "adapter_model.bin is a pickle and never opened: where you trust it, " + remedy
        refuse(f"{key}: {path} has no {WEIGHTS_FILE}: {remedy}", status=ExitStatus.USAGE)
    return path


def base_model_of(adapter: Path, name: str | None, key: str = "base_model") -> BaseModel:
    """Return the base model: the one with the name, or by default that of the adapter.

    Exits if it cannot be used.
    """
    if name is None:
        name = _configured_base_model(adapter)
    if name is None:
        return BaseModel(None, None)
    directory = model_directory(name, key)
    return BaseModel(name if directory is None else directory.name, directory)


def _configured_base_model(adapter: Path) -> str | None:
    """Return adapter_config.json's base model if it is a directory of this machine."""
    try:
        name = json.loads((adapter / CONFIG_FILE).read_text("utf-8"))["base_model_name_or_path"]
        is_directory = (Path(name) / "config.json").is_file()
    except (ValueError, KeyError, TypeError):
        return None  # the server says what is wrong with it
    return name if is_directory else None


@contextmanager
def server_with(
    server: str | None, key: str | None, *, purpose: str, model: Path | None, option: str
) -> Iterator["Client"]:
    """Connect to the running server, or start one that has the directory of the base model.

    `option` names the option of the base model. Exits if a running server would need the directory.
    """
    from service.cli.temporary_server import connected_or_started

    models_dir = None if model is None else model.parent
    with connected_or_started(server, key, purpose=purpose, models_dir=models_dir) as in_use:
        if model is not None and not in_use.is_temporary:
            refuse_path(model, option)
        yield in_use.client


def import_adapter(client: "Client", directory: Path, options: dict[str, Any]) -> "Run":
    """Return the run of the adapter in `directory`; repeated calls return the same run."""
    digests = [sha256_of(directory / name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return _imported(client, directory, _trained_with(directory) | options, digests)


def import_base_model(client: "Client", name: str, options: dict[str, Any]) -> "Run":
    """Return a run whose base model is `name`: evaluations belong to runs.

    Its adapter changes nothing: one layer's matrices are zero.
    """
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["q_proj"],
    }
    tensors = {
        f"{_LAYER}.lora_{side}.weight": {
            "dtype": "F32",
            "shape": [1, 1],
            "data_offsets": [4 * number, 4 * number + 4],
        }
        for number, side in enumerate("AB")
    }
    header = json.dumps(tensors).encode()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        (directory / CONFIG_FILE).write_text(json.dumps(config))
        weights = struct.pack("<Q", len(header)) + header + bytes(8)
        (directory / WEIGHTS_FILE).write_bytes(weights)
        named = {"base_model": name, "name": f"{name}, base model alone"}
        return _imported(client, directory, named | options, ["base", name])


def _imported(
    client: "Client", directory: Path, options: dict[str, Any], digests: list[str]
) -> "Run":
    key = json.dumps([digests, options], sort_keys=True)
    tag = f"import-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    earlier = next(iter(client.runs.list(limit=1, tag=tag)), None)
    if earlier is not None:
        return earlier
    adapter = client.adapters.create(directory, tags=[tag], **options)
    return client.runs.get(adapter.id)


def _trained_with(directory: Path) -> dict[str, Any]:
    """Return the options of scoring that `fairtune train` recorded beside the adapter."""
    try:
        spec = json.loads((directory / _TRAINING_ARGS_FILE).read_text("utf-8"))
        training = spec["training"]
        return {
            "quantization": spec["quantization"],
            "training": {name: training[name] for name in ("max_seq_length", "bf16")},
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def wait_or_cancel(job: "Evaluation | Merge") -> None:
    """Wait for a job; Ctrl-C cancels it. Raises JobFailed."""
    try:
        job.wait(progress=True)
    except KeyboardInterrupt:
        job.cancel()
        raise
