"""Downloads that resume and are verified.

Generated from fairtune/_async by tools/sync_client.py; do not edit.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from fairtune import _protocol as protocol
from fairtune._files import HASH_BUFFER_BYTES, digest, target_file
from fairtune._progress import ByteProgress
from fairtune._sync.transport import Transport
from fairtune.errors import DownloadFailed
from fairtune.models import ArtifactView, FileEntry

Entry = ArtifactView | FileEntry
_ATTEMPTS = 6


def download_files(
    transport: Transport,
    urls: Mapping[str, tuple[str, Entry]],
    directory: Path,
    *,
    progress: bool = False,
) -> Path:
    """Download files below `directory`, each by its relative path: its URL path and its entry.

    A file that is there with the right content is not downloaded again. Raises DownloadFailed.
    """
    total = sum(entry.size for _, entry in urls.values())
    shown = ByteProgress(total) if progress else None
    try:
        for name, (url, entry) in urls.items():
            file = target_file(directory, name)
            if not (file.is_file() and digest(file) == entry.sha256):
                _download(transport, url, file, entry.sha256, shown)
            elif shown is not None:
                shown.advance(entry.size)
    finally:
        if shown is not None:
            shown.close()
    return directory


def download_file(transport: Transport, url: str, file: Path) -> Path:
    """Download one file of unknown hash; return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _download(transport, url, file, None, None)
    return file


def _download(
    transport: Transport,
    url: str,
    file: Path,
    sha256: str | None,
    shown: ByteProgress | None,
) -> None:
    """Write `file` as a whole or not at all; what arrived before an interruption is kept beside it.

    Without a hash nothing shows that a part is of the same file, so it begins anew.
    """
    part = file.with_name(f"{file.name}.part")
    if sha256 is None:
        part.unlink(missing_ok=True)
    for attempt in range(_ATTEMPTS):
        offset = part.stat().st_size if part.exists() else 0
        try:
            _append(transport, url, part, offset, shown)
        except httpx.TransportError as error:
            if attempt == _ATTEMPTS - 1:
                raise transport.unreachable(error) from error
            time.sleep(protocol.delay_seconds(attempt))
            continue
        if sha256 is None or digest(part) == sha256:
            part.replace(file)
            return
        part.unlink()
        if offset == 0:
            break
    raise DownloadFailed(f"{file}: the downloaded content is not the stored file's; download again")


def _append(
    transport: Transport, url: str, part: Path, offset: int, shown: ByteProgress | None
) -> None:
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with transport.http.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # everything had arrived, or the part is of another file: the hash tells
        transport.check(response)
        is_partial = response.status_code == httpx.codes.PARTIAL_CONTENT
        if shown is not None and is_partial:
            shown.advance(offset)
        with Path(part).open("ab" if is_partial else "wb") as file:
            for piece in response.iter_bytes(HASH_BUFFER_BYTES):
                file.write(piece)
                if shown is not None:
                    shown.advance(len(piece))
