"""Downloads that resume and are verified."""

from collections.abc import Mapping
from pathlib import Path

import anyio
import httpx

from fairtune import _protocol as protocol
from fairtune._async.transport import AsyncTransport
from fairtune._files import HASH_BUFFER_BYTES, digest, target_file
from fairtune._progress import ByteProgress
from fairtune.errors import DownloadFailed
from fairtune.models import ArtifactView, FileEntry

Entry = ArtifactView | FileEntry
_ATTEMPTS = 6


async def download_files(
    transport: AsyncTransport,
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
                await _download(transport, url, file, entry.sha256, shown)
            elif shown is not None:
                shown.advance(entry.size)
    finally:
        if shown is not None:
            shown.close()
    return directory


async def download_file(transport: AsyncTransport, url: str, file: Path) -> Path:
    """Download one file of unknown hash; return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    await _download(transport, url, file, None, None)
    return file


async def _download(
    transport: AsyncTransport,
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
            await _append(transport, url, part, offset, shown)
        except httpx.TransportError as error:
            if attempt == _ATTEMPTS - 1:
                raise transport.unreachable(error) from error
            await anyio.sleep(protocol.delay_seconds(attempt))
            continue
        if sha256 is None or digest(part) == sha256:
            part.replace(file)
            return
        part.unlink()
        if offset == 0:
            break
    raise DownloadFailed(f"{file}: the downloaded content is not the stored file's; download again")


async def _append(
    transport: AsyncTransport, url: str, part: Path, offset: int, shown: ByteProgress | None
) -> None:
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    async with transport.http.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # everything had arrived, or the part is of another file: the hash tells
        await transport.check(response)
        is_partial = response.status_code == httpx.codes.PARTIAL_CONTENT
        if shown is not None and is_partial:
            shown.advance(offset)
        async with await anyio.Path(part).open("ab" if is_partial else "wb") as file:
            async for piece in response.aiter_bytes(HASH_BUFFER_BYTES):
                await file.write(piece)
                if shown is not None:
                    shown.advance(len(piece))
