"""One API for all commands, and a finished run that the tests only read."""

import json
import re
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from tests.support.merged_runs import publish
from tests.support.scored_runs import ScoredRun, right, wrong_on
from tests.support.served_api import ServedApi, served_api
from tests.support.trained_runs import leave_adapter, save

CAPS = [{"group": "lgbtq", "max": 0.5}, {"group": "mexican", "max": 0.5}]


class Ended(NamedTuple):
    """What a command has left."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def api(tmp_path_factory, migrated_sqlite) -> Iterator[ServedApi]:
    with served_api(tmp_path_factory.mktemp("api"), migrated_sqlite) as api:
        yield api


@pytest.fixture(scope="session")
def dataset_id(api) -> str:
    folder = resources.files("service.datasets.sample")
    files = {
        split: (folder / f"{split}.jsonl").read_bytes() for split in ("train", "validation", "test")
    }
    answer = api.http.post("/v1/datasets", data={"name": "sample"}, files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def start_run(api: ServedApi, dataset_id: str, **body: Any) -> str:
    answer = api.http.post(
        "/v1/runs", json={"dataset_id": dataset_id, "base_model": "tiny", "name": "a run"} | body
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def scored_run(
    api: ServedApi, dataset_id: str, name: str, caps: list[Any] = CAPS, **errors: int
) -> ScoredRun:
    """A succeeded run with a report, a checkpoint and an adapter."""
    fairness = {"caps": caps, "min_f1": 0.6}
    run = ScoredRun(api.context, start_run(api, dataset_id, name=name, fairness=fairness))
    save(run.worker, 90, best_step=90)
    leave_adapter(run.worker)
    run.certify(wrong_on(run.of("test"), **errors), base=right)
    run.succeed()
    return run


@pytest.fixture(scope="session")
def finished(api, dataset_id) -> str:
    """A run whose report passes, with a merged model. Tests leave it as it is."""
    run = scored_run(api, dataset_id, "finished")
    publish(api.context, api.http, run.run_id)
    return run.run_id


@pytest.fixture(scope="session")
def failing(api, dataset_id) -> str:
    """A run whose report does not pass. Tests leave it as it is."""
    return scored_run(api, dataset_id, "failing", lgbtq=40, mexican=40).run_id


@pytest.fixture
def queued(api, dataset_id) -> str:
    return start_run(api, dataset_id)


@pytest.fixture
def fairtune(api, monkeypatch, tmp_path) -> Command:
    """Run a command in this process; its exit status must be `status`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRTUNE_URL", api.url)
    monkeypatch.delenv("FAIRTUNE_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str, status: int = 0, input: Any = None) -> Ended:  # noqa: A002
        result = CliRunner().invoke(app, arguments, input=input)
        assert result.exit_code == status, (arguments, result.stdout, result.stderr)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.stderr
        if status == 2 and "Usage:" in result.stderr:  # typer's frame around its message
            return Ended(result.stdout, re.sub(r"[│\s]+", " ", result.stderr))
        return Ended(result.stdout, result.stderr)

    return run
