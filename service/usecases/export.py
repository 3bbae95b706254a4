"""Use case: export a run's result as a directory ready for a model hub."""

import shutil
import tempfile
from pathlib import Path

from service.artifacts import ArtifactStore, DamagedFile, StoredFile
from service.domain.errors import Conflict
from service.domain.job import ADAPTER_FILES, CARD_FILE
from service.store import runs as rows
from service.store.database import Database

# Logs reveal the training environment; predictions and the report's pages quote the data.
EXCLUDED = (".log", ".parquet", ".html")
_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def export(database: Database, store: ArtifactStore, run_id: str, target: Path) -> list[str]:
    """Write the adapter, its model card and the figures below `target`; return their paths.

    Each file is compared with its SHA-256, and the directory appears when all are written. Raises
    NotFound, OSError, and Conflict if there is no adapter, a file is damaged, or `target` is not
    empty.
    """
    with database.read() as session:
        _, job = rows.get_run(session, run_id)
        # Files of merges and predictions belong to the run, but not to its adapter.
        artifacts = [file for file in rows.artifacts(session, run_id) if file.job_id == job.id]
    missing = {*ADAPTER_FILES, CARD_FILE} - {file.path for file in artifacts}
    if missing:
        names = ", ".join(sorted(missing))
        raise Conflict(f"the run {run_id} is {job.status} and has no {names}; nothing was written")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(f"{target} exists and is not empty: choose a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    written = []
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for file in artifacts:
            if file.path.endswith(EXCLUDED):
                continue
            store.fetch(file.key, aside / file.path, StoredFile(file.size, file.sha256))
            written.append(file.path)
        (aside / ".gitattributes").write_text(_ATTRIBUTES)
        aside.chmod(0o755)
        aside.replace(target)
    except DamagedFile as error:
        raise Conflict(f"{error}; nothing was written") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return written
