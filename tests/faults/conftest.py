"""One installation per setting, kept for all rows on it that leave it whole."""

import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.houses import Houses
from tests.faults.merging import Merged, MergeScene
from tests.faults.record import Reference, record_of
from tests.faults.scene import Scene
from tests.support.s3_server import S3Server
from tests.support.tiny_models import make_models


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


def made_once(path: Path, make: Callable[[], str]) -> str:
    """What `make` returns, for every test process and every setting."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(make())
    return path.read_text()


@pytest.fixture(scope="session")
def reference(houses: Houses, shared: Path) -> Reference:
    """The undisturbed run."""

    def make() -> str:
        scene = Scene()
        with houses.open("files") as (scene.house, scene.dataset_id):
            scene.submit()
            scene.until_status("succeeded")
            scene.check("succeeded")
            return record_of(scene.house, scene.run_id).reference().dump()

    return Reference.load(made_once(shared / "reference.json", make))


@pytest.fixture(scope="session")
def merged(houses: Houses, reference: Reference, shared: Path) -> Merged:
    """The undisturbed merge of such a run."""

    def make() -> str:
        scene = MergeScene(reference)
        with houses.open("files") as (scene.house, scene.dataset_id):
            scene.prepare()
            scene.submit()
            scene.until_status("succeeded")
            scene.check("succeeded")
            return json.dumps(scene.downloaded())

    made: Merged = json.loads(made_once(shared / "merged.json", make))
    return made


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Path | None:
    """Where each row leaves what came of it, if anywhere."""
    folder: Path | None = request.config.getoption("--faults-outcomes")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder
