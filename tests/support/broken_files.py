"""Every way in which the tests break a file of a model directory, drawn from a seeded generator."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head></html>\n"

VALUES: tuple[Any, ...] = (
    None, True, "", "text", "\0", -1, 0, 1, 3, 10**12, -(10**12), 10**30, 0.5, -0.5, 1e300,
    float("nan"), float("inf"), [], [1], ["text"], [None], {}, {"text": 1}, {"text": {"text": []}},
)  # fmt: skip
"""Values that replace one in a JSON file."""


def whole_file_faults(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield faults of a whole file: their description and the broken content."""
    yield "emptied", b""
    yield "cut in half", content[: len(content) // 2]
    yield "cut by a byte", content[:-1]
    yield "cut to 5 bytes", content[:5]
    yield "LFS pointer", LFS_POINTER
    yield "web page", WEB_PAGE
    yield "zeros", bytes(len(content))
    yield "random bytes", random.Random(len(content)).randbytes(len(content))
    yield "text", b"not found\n"
    yield "longer", content + b"\0" * 8
    yield "byte order mark", b"\xef\xbb\xbf" + content
    yield "UTF-16", content.decode("utf-8", "replace").encode("utf-16")
    for text in ("null", "[]", "{}", "7", '"text"', "true", "[[[[]]]]", "[" * 100_000):
        yield f"JSON {text[:10]}", text.encode()


def json_faults(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield faults of single values in a JSON object: removed, or replaced by each of VALUES."""
    whole = json.loads(content)
    for path in list(_paths(whole)):
        yield f"without {path}", json.dumps(_changed(whole, path)).encode()
        for value in VALUES:
            yield f"{path} = {value!r}", json.dumps(_changed(whole, path, value)).encode()


def safetensors_faults(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the faults of `json_faults` in the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    for description, broken in json_faults(header):
        yield description, len(broken).to_bytes(8, "little") + broken + data
    for number in (0, 1, length - 1, length + 1, 2**40, 2**64 - 1):
        yield f"header of {number} bytes", number.to_bytes(8, "little") + content[8:]


def faults_of(path: Path) -> list[tuple[str, bytes]]:
    """Return all faults of a file."""
    content = path.read_bytes()
    faults = list(whole_file_faults(content))
    if path.suffix == ".json":
        faults += json_faults(content)
    elif path.suffix == ".safetensors":
        faults += safetensors_faults(content)
    elif path.suffix == ".jinja":
        faults += template_faults(content.decode())
    return faults


def template_faults(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield broken chat templates: cut at each tag, and with statements that fail."""
    for index in range(1, len(text)):
        if text[index] in "{%}":
            yield f"cut at {index}", text[:index].encode()
    for statement in (
        "{{ raise_exception('never') }}",
        "{{ messages + 1 }}",
        "{{ nothing.at.all }}",
        "{{ messages['text']['text'] }}",
        "{{ 1 / 0 }}",
        "{% include 'other' %}",
        "{{ ''.__class__.__mro__ }}",
        "{% for number in range(10**9) %}{% endfor %}",
        "{{ messages | nofilter }}",
    ):
        yield statement, (statement + text).encode()


_REMOVED = object()
_MAX_ITEMS = 3
"""Items of a list or object whose faults are tried, at each level: the rest is alike."""


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        keys = list(value)
        for key in keys if len(keys) < 60 else keys[:_MAX_ITEMS]:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), _MAX_ITEMS)):
            yield from _paths(value[index], (*path, index))


def _changed(whole: Any, path: tuple[str | int, ...], value: Any = _REMOVED) -> Any:
    changed = copy.deepcopy(whole)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if value is _REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed
