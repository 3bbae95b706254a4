"""Use case: a run's result as a directory that a model hub takes as it is."""

import shutil
import tempfile
from pathlib import Path

from service.artifacts import ArtifactStore, DamagedFile, StoredFile
from service.domain.errors import Conflict
from service.domain.job import ADAPTER_FILES, CARD_FILE
from service.store import runs as rows
from service.store.database import Database

# Logs say where and how it was trained, predictions and the report's pages quote the data.
_LEFT_OUT = (".log", ".parquet", ".html")
_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def export(database: Database, store: ArtifactStore, run_id: str, target: Path) -> list[str]:
    """Write the adapter, its card and the figures below `target`; return their paths.

    Each is compared with its SHA-256, and the directory appears when all are there. Raises
    NotFound, OSError, and Conflict where there is no adapter, a file is damaged, or `target` holds
    something already.
    """
    with database.read() as session:
        _, job = rows.get_run(session, run_id)
        # What merges and predictions made is the run's too, and no part of its adapter.
        found = [one for one in rows.artifacts(session, run_id) if one.job_id == job.id]
    missing = {*ADAPTER_FILES, CARD_FILE} - {one.path for one in found}
    if missing:
        names = ", ".join(sorted(missing))
        raise Conflict(f"the run {run_id} is {job.status} and has no {names}; nothing was written")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(f"{target} is there already and not empty: name a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    written = []
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for one in found:
            if one.path.endswith(_LEFT_OUT):
                continue
            store.fetch(one.key, aside / one.path, StoredFile(one.size, one.sha256))
            written.append(one.path)
        (aside / ".gitattributes").write_text(_ATTRIBUTES)
        aside.chmod(0o755)
        aside.replace(target)
    except DamagedFile as error:
        raise Conflict(f"{error}; nothing was written") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return written
