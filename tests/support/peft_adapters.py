"""PEFT adapters without peft: configuration and safetensors by hand, for the service's tests."""

import io
import json
import tarfile
from typing import Any

import numpy as np

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny",
    "inference_mode": True,
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "init_lora_weights": True,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "peft_version": "0.21.2",
}
TYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}

Tensors = dict[str, tuple[str, np.ndarray]]


def tensors(rank: int = 4, layers: int = 2, width: int = 8) -> Tensors:
    made: Tensors = {}
    for layer in range(layers):
        for name in ("q_proj", "v_proj"):
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            made[f"{module}.lora_A.weight"] = ("F32", np.ones((rank, width), np.float32))
            made[f"{module}.lora_B.weight"] = ("F32", np.zeros((width, rank), np.float32))
    return made


def safetensors(content: Tensors) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, values) in content.items():
        raw = values.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    return from_header(header, data)


def from_header(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def files(config: dict[str, Any] | None = None, content: Tensors | None = None) -> dict[str, bytes]:
    """The files of an adapter; `config` is merged into CONFIG."""
    return {
        "adapter_config.json": json.dumps(CONFIG | (config or {})).encode(),
        "adapter_model.safetensors": safetensors(tensors() if content is None else content),
    }


def tar(contents: dict[str, bytes], archive_format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=archive_format) as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def adapter(config: dict[str, Any] | None = None, content: Tensors | None = None) -> bytes:
    """A tar of an adapter."""
    return tar(files(config, content))
