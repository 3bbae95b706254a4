"""The artifact store: a directory or a bucket, with keys such as ``runs/run_…/job_…/1/file``.

Invariant: a file appears whole or not at all. Rows alone decide what users see.
"""

from service.artifacts.files import (
    DamagedFile,
    Entry,
    MissingFile,
    ProgressCallback,
    StoredFile,
    StoreUnavailable,
    is_safe,
)
from service.artifacts.store import ArtifactStore

__all__ = [
    "ArtifactStore",
    "DamagedFile",
    "Entry",
    "MissingFile",
    "ProgressCallback",
    "StoreUnavailable",
    "StoredFile",
    "is_safe",
]
