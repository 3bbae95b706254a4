"""One installation per setting, kept for all rows on it that leave it whole."""

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from houses import Houses
from record import Reference, record_of
from s3_server import S3Server
from scene import Scene
from tiny_models import make_models


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, request: pytest.FixtureRequest
) -> Path:
    """A folder that all test processes of this session have in common."""
    given: Path | None = request.config.getoption("--faults-shared")
    if given is not None:
        return given
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def models(shared: Path) -> Path:
    with (shared / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "models").exists():
            make_models(shared / "models-aside").rename(shared / "models")
    return shared / "models"


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[S3Server]:
    server = S3Server(smallest_part=1)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def houses(
    tmp_path_factory: pytest.TempPathFactory, models: Path, request: pytest.FixtureRequest
) -> Iterator[Houses]:
    servers = {
        "servers": lambda: request.getfixturevalue("postgres"),
        "bucket": lambda: request.getfixturevalue("bucket_server"),
    }
    made = Houses(tmp_path_factory.mktemp("houses"), models, servers)
    yield made
    made.demolish()


@pytest.fixture(scope="session")
def reference(houses: Houses, shared: Path) -> Reference:
    """The undisturbed run, made once for every test process and both settings."""
    path = shared / "reference.json"
    with (shared / "reference.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            scene = Scene()
            with houses.open("files") as (scene.house, scene.dataset_id):
                scene.submit()
                scene.until_status("succeeded")
                scene.check("succeeded")
                path.write_text(record_of(scene.house, scene.run_id).reference().dump())
    return Reference.load(path.read_text())


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Path | None:
    """Where each row leaves what came of it, if anywhere."""
    folder: Path | None = request.config.getoption("--faults-outcomes")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder
