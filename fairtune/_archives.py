"""Archives of local directories."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fairtune._protocol import Source

_REQUIRED = ("adapter_config.json", "adapter_model.safetensors")
_OPTIONAL = ("README.md",)


@contextmanager
def adapter_archive(source: Source) -> Iterator[Source]:
    """Yield a tar of an adapter's directory; anything else than a directory as it is.

    Raises OSError if a file of the directory is missing.
    """
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        yield source
        return
    directory = Path(source)
    with tempfile.TemporaryFile() as file:
        _pack(directory, file)
        file.seek(0)
        yield file


def _pack(directory: Path, file: IO[bytes]) -> None:
    # Not compressed: weights hardly become smaller.
    with tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
        for name in (*_REQUIRED, *_OPTIONAL):
            if name in _REQUIRED or (directory / name).exists():
                archive.add(directory / name, name, recursive=False)
