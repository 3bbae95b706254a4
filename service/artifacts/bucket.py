"""A prefix of an S3 bucket as the artifact store.

Endpoint, region and credentials come from the usual AWS_* variables, files or machine roles. S3
shows an object when its upload is complete, and checks each part's SHA-256 as it arrives. Nothing
here starts a thread: an upload that hangs is abandoned together with its caller's thread.
"""

import base64
import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from service.artifacts.files import CHUNK, Entry, ProgressCallback, StoredFile, StoreUnavailable
from service.artifacts.reader import ObjectReader
from service.artifacts.s3_errors import translate_errors
from service.domain.errors import NotFound

PART = 16 << 20
"""Bytes of a part, buffered in memory; larger where 10,000 parts would not suffice."""
_MAX_PARTS = 10_000
_MAX_DELETED = 1000
_CHECK_SECONDS = 2


class Bucket:
    """Implementation for a bucket. Keys are safe relative paths: the caller has checked them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.name = parts.netloc
        folder = unquote(parts.path).strip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._lock = threading.Lock()

    @cached_property
    def _s3(self) -> Any:
        return self._client(connect_timeout=5, read_timeout=60, attempts=5)

    @cached_property
    def _quick(self) -> Any:
        """Client with short timeouts, for checks of availability."""
        return self._client(connect_timeout=_CHECK_SECONDS, read_timeout=_CHECK_SECONDS, attempts=1)

    def _client(self, *, connect_timeout: float, read_timeout: float, attempts: int) -> Any:
        import boto3  # here: it takes a while, and a directory does not need it
        from botocore.config import Config

        with self._lock, translate_errors():  # creating a client is not thread-safe, using one is
            session = boto3.session.Session()
            region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
            retries: dict[str, Any] = {"mode": "standard"}
            if "AWS_MAX_ATTEMPTS" not in os.environ:
                retries["total_max_attempts"] = attempts
            config = Config(
                signature_version="s3v4",
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                retries=retries,
                user_agent_extra="fairtune",
            )
            return session.client("s3", region_name=region, config=config)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": self._prefix + key}

    def check_mounted(self) -> None:
        """Do nothing: an unreachable bucket fails every request."""

    def check(self) -> None:
        """Raise StoreUnavailable if the bucket does not answer. Write access is not tested."""
        with translate_errors():
            self._quick.list_objects_v2(Bucket=self.name, Prefix=self._prefix, MaxKeys=1)

    def put(self, source: Path, key: str, size: int | None, moved: ProgressCallback) -> StoredFile:
        with source.open("rb") as reader:
            whole = os.fstat(reader.fileno()).st_size if size is None else size
            part = max(PART, -(-whole // _MAX_PARTS))
            digest, done = hashlib.sha256(), 0

            def read() -> bytes:
                nonlocal done
                chunk = reader.read(part if size is None else min(part, size - done))
                digest.update(chunk)
                done += len(chunk)
                return chunk

            first = read()
            if len(first) < part:
                with translate_errors(key):
                    self._s3.put_object(**self._at(key), Body=first, ChecksumSHA256=_sum(first))
            else:
                self._put_parts(key, first, read, moved)
            moved(done)
        return StoredFile(done, digest.hexdigest())

    def _put_parts(
        self, key: str, first: bytes, read: Callable[[], bytes], moved: ProgressCallback
    ) -> None:
        with translate_errors(key):
            created = self._s3.create_multipart_upload(**self._at(key), ChecksumAlgorithm="SHA256")
        upload = {**self._at(key), "UploadId": created["UploadId"]}
        parts: list[dict[str, Any]] = []
        done = 0
        try:
            chunk = first
            while chunk:
                number, sha256 = len(parts) + 1, _sum(chunk)
                with translate_errors(key):
                    answer = self._s3.upload_part(
                        **upload, PartNumber=number, Body=chunk, ChecksumSHA256=sha256
                    )
                parts.append(
                    {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": sha256}
                )
                done += len(chunk)
                moved(done)
                chunk = read()
            with translate_errors(key):
                self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with contextlib.suppress(OSError, NotFound), translate_errors(key):
                self._s3.abort_multipart_upload(**upload)
            raise

    def open(self, key: str, start: int = 0) -> BinaryIO:
        return io.BufferedReader(ObjectReader(self._s3, self._at(key), key, start), CHUNK)

    def stat(self, key: str) -> Entry:
        with translate_errors(key):
            head = self._s3.head_object(**self._at(key))
        return Entry(key, head["ContentLength"], head["LastModified"])

    def entries(self, prefix: str) -> Iterator[Entry]:
        where = {"Bucket": self.name, "Prefix": self._below(prefix)}
        with translate_errors():
            for page in self._s3.get_paginator("list_objects_v2").paginate(**where):
                for item in page.get("Contents", ()):
                    yield Entry(self._key(item["Key"]), item["Size"], item["LastModified"])
            for page in self._s3.get_paginator("list_multipart_uploads").paginate(**where):
                for item in page.get("Uploads", ()):
                    key, upload_id = self._key(item["Key"]), item["UploadId"]
                    yield Entry(key, 0, item["Initiated"], upload_id)

    def _below(self, prefix: str) -> str:
        # With the slash: runs/a/ is no prefix of runs/ab/.
        return f"{self._prefix}{prefix}/" if prefix else self._prefix

    def _key(self, name: str) -> str:
        return name.removeprefix(self._prefix)

    def remove(self, entries: Iterable[Entry]) -> None:
        whole = []
        for entry in entries:
            if entry.half is None:
                whole.append({"Key": self._prefix + entry.key})
            else:
                with contextlib.suppress(NotFound), translate_errors(entry.key):
                    self._s3.abort_multipart_upload(**self._at(entry.key), UploadId=entry.half)
        for first in range(0, len(whole), _MAX_DELETED):
            batch = {"Objects": whole[first : first + _MAX_DELETED], "Quiet": True}
            with translate_errors():
                answer = self._s3.delete_objects(Bucket=self.name, Delete=batch)
            for refused in answer.get("Errors", ()):
                if refused.get("Code") != "NoSuchKey":
                    raise StoreUnavailable(f"{refused.get('Code')}: {refused.get('Message')}")

    def remove_tree(self, prefix: str) -> None:
        self.remove(list(self.entries(prefix)))

    def remove_except(self, prefix: str, keep: Collection[str]) -> int:
        removed = [entry for entry in self.entries(prefix) if entry.half or entry.key not in keep]
        self.remove(removed)
        return len(removed)

    def link(self, key: str, name: str, media_type: str, seconds: int) -> str:
        """Return a presigned URL, valid for so many seconds, that downloads the file as `name`."""
        with translate_errors(key):
            url: str = self._s3.generate_presigned_url(
                "get_object",
                Params={
                    **self._at(key),
                    "ResponseContentDisposition": f'attachment; filename="{_plain(name)}"',
                    "ResponseContentType": media_type,
                },
                ExpiresIn=seconds,
            )
        return url


def _sum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _plain(name: str) -> str:
    """Replace characters that need quoting in a header."""
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
