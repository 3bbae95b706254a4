"""Cache of quantized weights, shared by successive runs.

On a CPU quantizing takes most of the time of loading a model, and gives the same bits each time. An
entry is a directory as transformers saves a model; its name is a hash of all that determines its
content: the model's files, the settings and the libraries' versions. It is written to a temporary
directory, renamed, and verified against its manifest before use. A broken entry or an unusable
cache directory costs time only: the model is then quantized as if there were no cache.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.domain.digests import sha256_of

log = logging.getLogger("fairtune")

MIN_MODEL_BYTES = 64_000_000
"""Smallest model, by the bytes of its files, that is cached: quantizing a smaller one takes a few
tenths of a second."""
MAX_CACHE_BYTES = 20_000_000_000
"""Limit for all entries together; the least recently used entries are removed first."""
MANIFEST = "manifest.json"
_VERSIONS = ("torch", "transformers", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class QuantizedCache:
    """The entry of one model under one set of quantization settings."""

    root: Path
    key: str
    size: int
    """Bytes of the model's own files; an upper bound for the entry's size."""

    @classmethod
    def of(cls, root: Path, model: Path, settings: dict[str, Any]) -> "QuantizedCache | None":
        """Return the entry for the model files in `model`; None for a model too small to cache."""
        paths = sorted([*model.glob("*.safetensors"), *model.glob("*.json")])
        files = [(path.name, os.path.realpath(path), path.stat()) for path in paths]
        size = sum(stat.st_size for _, _, stat in files)
        if size < MIN_MODEL_BYTES:
            return None
        # Not a hash of the content, which takes half as long as quantizing it. Unlike the mtime,
        # the ctime cannot be set by a program.
        identity = [
            (name, real, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            for name, real, stat in files
        ]
        versions = [version(name) for name in _VERSIONS]
        text = json.dumps([identity, settings, versions], sort_keys=True)
        return cls(root, hashlib.sha256(text.encode()).hexdigest()[:32], size)

    def load(self, read: Callable[[Path], Any]) -> Any | None:
        """Return `read(entry directory)`; None if there is no entry. A broken entry is removed."""
        entry = self.root / self.key
        if not entry.is_dir():
            return None
        try:
            _verify(entry)
            model = read(entry)
            os.utime(entry)
        except Exception as error:  # noqa: BLE001 - any failure: the model's own files remain
            log.warning("the cached quantized weights %s cannot be used: %s", self.key, error)
            shutil.rmtree(entry, ignore_errors=True)
            return None
        log.info("loaded quantized weights from %s", entry)
        return model

    def store(self, model: Any) -> None:
        """Write the weights of `model`, just loaded; skip it without disk space or permission."""
        try:
            self.root.mkdir(exist_ok=True)
            if shutil.disk_usage(self.root).free < 3 * self.size:
                return
            with (self.root / ".lock").open("w") as lock:
                # BlockingIOError: another process is writing, perhaps the same entry.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._write(model)
                self._evict()
        except Exception as error:  # noqa: BLE001 - no space or permission: the cache is optional
            log.info("the quantized weights are not cached: %s", error)

    def _write(self, model: Any) -> None:
        for stale in self.root.glob(".*.tmp"):  # of processes that were killed
            shutil.rmtree(stale, ignore_errors=True)
        staging = self.root / f".{self.key}.{os.getpid()}.tmp"
        try:
            model.save_pretrained(staging)
            files = {path.name: sha256_of(path) for path in staging.iterdir()}
            # Not synced: a file torn by a crash of the machine does not match the manifest.
            (staging / MANIFEST).write_text(json.dumps(files))
            for path in staging.iterdir():
                path.chmod(0o644)
            staging.rename(self.root / self.key)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _evict(self) -> None:
        entries = [path for path in self.root.iterdir() if not path.name.startswith(".")]
        entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for entry in entries:
            total += sum(path.stat().st_size for path in entry.iterdir())
            if total > MAX_CACHE_BYTES:
                shutil.rmtree(entry, ignore_errors=True)


def _verify(entry: Path) -> None:
    """Raise ValueError or OSError unless the entry's files match its manifest."""
    files: dict[str, str] = json.loads((entry / MANIFEST).read_bytes())
    if {path.name for path in entry.iterdir()} != {*files, MANIFEST}:
        raise ValueError("its files are not those of its manifest")
    for name, digest in files.items():
        if sha256_of(entry / name) != digest:
            raise ValueError(f"{name} does not match the manifest")
