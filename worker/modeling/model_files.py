"""Check of a model directory's files before a library reads them.

An interrupted download, a clone without Git LFS or a proxy's error page leave files that have the
right name and the wrong content. They are recognised here by their first bytes, their structure and
their sizes, within milliseconds and before torch is imported.
"""

import json
import stat
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from service.domain.errors import first_line
from worker.modeling.model_failures import RESTORE, unavailable

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_JSON_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "vocab.json",
    "chat_template.json",
)
_TEXT_FILES = ("chat_template.jinja", "merges.txt", "vocab.txt")
_BINARY_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_VOCABULARIES = ("tokenizer.json", "*vocab*", "*.model", "*.spm", "*.tiktoken")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pth", "pytorch_model.pt")

_MAX_HEADER_BYTES = 100_000_000
"""Largest header that safetensors reads."""

_ITEM_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | {
    name: 8 * size
    for size, names in {
        1: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
        2: ("U16", "I16", "F16", "BF16"),
        4: ("U32", "I32", "F32"),
        8: ("U64", "I64", "F64", "C64"),
    }.items()
    for name in names
}


class FaultyFile(ValueError):
    """A file of a model directory is not what its name says; the message starts with its name."""

    def __init__(self, file: str, fault: str, remedy: str = RESTORE) -> None:
        super().__init__(f"{file} {fault}")
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The safetensors files that hold a model's weights."""

    files: list[str]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes by the weights' names, as the files' headers state them."""
    origins: dict[str, str] = field(default_factory=dict)
    """The file of each weight; of a weight that the index names and no file holds, the file that
    should."""


def check_files(directory: Path, name: str) -> None:
    """Raise ProgramFailure(model_unavailable) for a file that is missing, torn or something else.

    `name` is the model's name for the message.
    """
    try:
        _check_config(directory)
        read_weight_files(directory)
        _check_tokenizer_files(directory)
    except FaultyFile as fault:
        raise unavailable(name, str(fault), fault.remedy) from fault


def _check_config(directory: Path) -> None:
    config = read_object(directory / CONFIG_FILE)
    if (directory / "adapter_config.json").exists():
        # transformers would load the base model that this file names, whatever lies beside it.
        raise FaultyFile(
            "adapter_config.json",
            "makes this directory a LoRA adapter, not a model",
            "Use the model that the adapter was trained on, or merge the two",
        )
    for key, kind, description in (
        ("model_type", str, "text"),
        ("architectures", list, "a list"),
        ("quantization_config", dict, "an object"),
    ):
        if not isinstance(config.get(key), (kind, type(None))):
            raise FaultyFile(
                CONFIG_FILE, f"has a field {key} that is not {description}: {config[key]!r:.60}"
            )


def _check_tokenizer_files(directory: Path) -> None:
    for file in _JSON_FILES:
        if _exists(directory / file):
            read_object(directory / file)
    for file in _TEXT_FILES:
        if _exists(directory / file):
            _read_text(directory / file)
    for file in _BINARY_FILES:
        if _exists(directory / file):
            check_content(directory / file)
    if not any(next(directory.glob(pattern), None) for pattern in _VOCABULARIES):
        raise FaultyFile("tokenizer.json", "is missing, and there is no other tokenizer file")


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def check_content(path: Path) -> None:
    """Raise FaultyFile for a file that cannot be read, is empty or has foreign content."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FaultyFile(path.name, "is not a file")
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        if path.is_symlink():
            raise FaultyFile(path.name, "is a link to a file that does not exist") from None
        raise FaultyFile(path.name, "is missing") from None
    except OSError as error:
        raise FaultyFile(
            path.name, f"cannot be read ({error.strerror})", "Let the worker's user read it"
        ) from error
    if not start:
        raise FaultyFile(path.name, "is empty (0 bytes)")
    if start.startswith(b"version https://git-lfs"):
        raise FaultyFile(
            path.name,
            "is a Git LFS pointer, not the file itself",
            "Run `git lfs install` and `git lfs pull` in the clone, or download the file",
        )
    beginning = start.lstrip().lower()
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        raise FaultyFile(path.name, "is a web page, not the file itself", "Download it again")
    if not start.strip(b"\0"):
        raise FaultyFile(path.name, "begins with zero bytes only", "Download it again")


def _read_text(path: Path) -> str:
    check_content(path)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise FaultyFile(path.name, f"is not UTF-8 text (byte {error.start})") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file. Raises FaultyFile for anything else."""
    text = _read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        cut = " (it is cut off)" if error.pos >= len(text.rstrip()) else ""
        raise FaultyFile(
            path.name, f"is not valid JSON{cut}: {error.msg} in line {error.lineno}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FaultyFile(path.name, f"is not valid JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise FaultyFile(path.name, f"is not a JSON object, but {_json_type(content)}")
    return content


def _json_type(content: object) -> str:
    if content is None:
        return "null"
    names = {list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names[type(content)]


def read_weight_files(directory: Path) -> WeightFiles:
    """Return the files that hold the weights, and the weights' shapes from their headers.

    A single file comes before an index, as transformers reads them. Raises FaultyFile for a file
    that is missing, cut off, longer than its header states or not in the format.
    """
    weight_map: dict[str, str] = {}
    if _exists(directory / WEIGHTS_FILE):
        files = [WEIGHTS_FILE]
    elif _exists(directory / INDEX_FILE):
        weight_map = read_index(directory / INDEX_FILE)
        files = sorted(set(weight_map.values()))
        if missing := [file for file in files if not _exists(directory / file)]:
            raise FaultyFile(
                missing[0],
                f"is missing: {len(missing)} of the {len(files)} files of {INDEX_FILE} are not "
                "there",
                "Download the missing files",
            )
    elif pickles := [file for file in _PICKLES if _exists(directory / file)]:
        raise FaultyFile(
            pickles[0],
            "is the only form of the weights here. Pickled files can run code and are never read",
            f"Save the model as {WEIGHTS_FILE} (save_pretrained of a current transformers does)",
        )
    else:
        raise FaultyFile(WEIGHTS_FILE, f"is missing, and there is no {INDEX_FILE} either")
    shapes: dict[str, tuple[int, ...]] = {}
    origins = dict(weight_map)
    for file in files:
        own = _read_header(directory / file)
        shapes |= own
        origins |= dict.fromkeys(own, file)
    if not shapes:
        raise FaultyFile(files[0], "holds no weights")
    return WeightFiles(files, shapes, origins)


def read_index(path: Path) -> dict[str, str]:
    """Return the file of each weight. Raises FaultyFile for an index that is none."""
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FaultyFile(path.name, "has no field weight_map that maps weights to files")
    for file in weight_map.values():
        if (
            not isinstance(file, str)
            or Path(file).name != file
            or not file.endswith(".safetensors")
            or "\0" in file
        ):
            raise FaultyFile(
                path.name,
                f"maps a weight to {file!r:.80}, which is not the name of a safetensors file",
            )
    return weight_map


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights in a safetensors file, checked against its size."""
    check_content(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > _MAX_HEADER_BYTES:
            raise FaultyFile(path.name, "is not in the safetensors format: it has no valid header")
        if length > size - 8:
            raise FaultyFile(
                path.name,
                f"is cut off within its header ({size} bytes are there)",
                "Download it again",
            )
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FaultyFile(
            path.name, f"is not in the safetensors format: {first_line(error)}"
        ) from error
    if not isinstance(header, dict):
        raise FaultyFile(path.name, "is not in the safetensors format: its header is no object")
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for weight, entry in header.items():
        if weight == "__metadata__":
            continue
        shapes[weight], last = _weight_entry(path.name, weight, entry)
        end = max(end, last)
    expected = 8 + length + end
    if size < expected:
        raise FaultyFile(
            path.name,
            f"is cut off: {size:,} of {expected:,} bytes are there",
            "Download it again",
        )
    if size > expected:
        raise FaultyFile(
            path.name,
            f"has {size - expected:,} bytes more than its header describes",
            "Download it again",
        )
    return shapes


def _weight_entry(file: str, weight: str, entry: Any) -> tuple[tuple[int, ...], int]:
    """Return a weight's shape and the end of its bytes."""

    def is_size(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if (
        not isinstance(dtype, str)
        or not isinstance(shape, list)
        or not all(map(is_size, shape))
        or not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(map(is_size, offsets))
    ):
        raise FaultyFile(file, f"is damaged: its header does not describe the weight {weight}")
    bits = _ITEM_BITS.get(dtype)
    if bits is not None and prod(shape) * bits != 8 * (offsets[1] - offsets[0]):
        raise FaultyFile(
            file,
            f"is damaged: {weight} of the shape {tuple(shape)} and type {dtype} does not take "
            f"{offsets[1] - offsets[0]} bytes",
        )
    return tuple(shape), offsets[1]
