"""One installation per setting, kept for all cases on it that leave it whole."""

import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.case_run import CaseRun
from tests.faults.environments import Environments
from tests.faults.merge_case_run import MergeCaseRun, Merged
from tests.faults.record import Reference, record_of
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
def environments(
    tmp_path_factory: pytest.TempPathFactory, models: Path, request: pytest.FixtureRequest
) -> Iterator[Environments]:
    servers = {
        "servers": lambda: request.getfixturevalue("postgres"),
        "bucket": lambda: request.getfixturevalue("bucket_server"),
    }
    made = Environments(tmp_path_factory.mktemp("environments"), models, servers)
    yield made
    made.close()


def create_once(path: Path, make: Callable[[], str]) -> str:
    """What `make` returns, for every test process and every setting."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(make())
    return path.read_text()


@pytest.fixture(scope="session")
def reference(environments: Environments, shared: Path) -> Reference:
    """The undisturbed run."""

    def make() -> str:
        case_run = CaseRun()
        with environments.open("files") as (case_run.environment, case_run.dataset_id):
            case_run.submit()
            case_run.until_status("succeeded")
            case_run.check("succeeded")
            return record_of(case_run.environment, case_run.run_id).reference().dump()

    return Reference.load(create_once(shared / "reference.json", make))


@pytest.fixture(scope="session")
def merged(environments: Environments, reference: Reference, shared: Path) -> Merged:
    """The undisturbed merge of such a run."""

    def make() -> str:
        case_run = MergeCaseRun(reference)
        with environments.open("files") as (case_run.environment, case_run.dataset_id):
            case_run.prepare()
            case_run.submit()
            case_run.until_status("succeeded")
            case_run.check("succeeded")
            return json.dumps(case_run.downloaded())

    made: Merged = json.loads(create_once(shared / "merged.json", make))
    return made


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Path | None:
    """Where each case leaves what came of it, if anywhere."""
    folder: Path | None = request.config.getoption("--faults-outcomes")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder
