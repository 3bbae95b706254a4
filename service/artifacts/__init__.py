"""Where files live: a directory or a bucket, under keys such as ``runs/run_…/job_…/1/file``.

Invariant: a file appears whole or not at all. What is visible to users is decided by rows alone.
"""

from service.artifacts.files import Damaged, Entry, Moved, StoreAway, Stored, is_safe
from service.artifacts.store import ArtifactStore

__all__ = ["ArtifactStore", "Damaged", "Entry", "Moved", "StoreAway", "Stored", "is_safe"]
