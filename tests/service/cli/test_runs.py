"""`fairtune runs`: list, show, control, delete."""

import pytest

from service.domain.states import JobStatus
from tests.service.cli.conftest import start_run
from tests.support.fake_worker import Worker
from tests.support.trained_runs import finish

CONTROLS = {"cancel": "cancelled", "pause": "paused"}


def test_a_list_has_a_line_for_each_run_and_json_has_the_answer(api, fairtune, finished, failing):
    listed = fairtune("runs", "list", "--status", "succeeded")
    header, *lines = listed.out.splitlines()
    assert header.split() == ["ID", "STATUS", "PROGRESS", "NAME", "BASE", "MODEL", "CREATED"]
    runs = fairtune("runs", "list", "--status", "succeeded", "--json").json
    assert runs == api.http.get("/v1/runs?status=succeeded").json()["data"]
    assert {finished, failing} <= {run["id"] for run in runs}
    assert [line.split()[0] for line in lines] == [run["id"] for run in runs]
    assert all("100 %" in line for line in lines)


def test_a_list_can_be_filtered_and_bounded(api, fairtune, dataset_id):
    ids = [start_run(api, dataset_id, name=f"filtered {n}", tags=["filtered"]) for n in range(3)]
    filters = {"--tag": "filtered", "--dataset": dataset_id, "--status": "queued"}
    for option, value in filters.items():
        rows = fairtune("runs", "list", option, value, "--all", "--json").json
        assert set(ids) <= {row["id"] for row in rows}
    rows = fairtune("runs", "list", "--name", "filtered 1", "--json").json
    assert [row["id"] for row in rows] == [ids[1]]
    bounded = fairtune("runs", "list", "--tag", "filtered", "-n", "2")
    assert [line.split()[0] for line in bounded.out.splitlines()[1:]] == [ids[2], ids[1]]
    assert "--limit or --all" in bounded.err
    nothing = fairtune("runs", "list", "--tag", "nobody")
    assert (nothing.out, nothing.err) == ("", "There are no such runs.\n")
    assert fairtune("runs", "list", "--tag", "nobody", "--json").json == []


def test_a_run_is_shown_with_what_matters(api, fairtune, finished, queued):
    shown = fairtune("runs", "show", finished).out
    for text in (finished, "succeeded", "100 %", "tiny", "hate_speech_simple"):
        assert text in shown
    assert fairtune("runs", "show", finished, "--json").json == (
        api.http.get(f"/v1/runs/{finished}").json()
    )
    waiting = fairtune("runs", "show", queued).out
    assert "queued at position" in waiting
    spec = fairtune("runs", "show", queued, "--spec").out
    assert "training.learning_rate" in spec
    assert fairtune("runs", "show", queued, "--spec", "--json").json["base_model"] == "tiny"


def test_a_failed_run_has_its_reason_and_advice(api, fairtune, queued):
    worker = Worker(api.context, queued)
    failure = {"failure_reason": "invalid_data", "failure_detail": "row 3 is strange"}
    finish(worker, JobStatus.FAILED, **failure)
    shown = fairtune("runs", "show", queued).out
    assert "row 3 is strange" in " ".join(shown.split())
    assert "advice" in shown
    retried = fairtune("runs", "retry", queued, "--from-start")
    assert retried.out == f"{queued} is queued\n"


def test_last_is_the_newest_run(api, fairtune, dataset_id):
    newest = start_run(api, dataset_id, name="the newest")
    assert fairtune("runs", "show", "last", "--json").json["id"] == newest


@pytest.mark.parametrize(("command", "state"), CONTROLS.items())
def test_control_changes_the_state(fairtune, queued, command, state):
    assert fairtune("runs", command, queued).out == f"{queued} is {state}\n"
    if command == "pause":
        assert fairtune("runs", "resume", queued, "--json").json["status"] == "queued"
    refused = fairtune("runs", "retry", queued, status=1)
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1


def test_a_running_run_is_asked(api, fairtune, queued):
    Worker(api.context, queued)
    assert fairtune("runs", "pause", queued).out == f"{queued} is running; requested: pause\n"
    assert "running, pause requested" in fairtune("runs", "show", queued).out


def test_deletion_is_confirmed(fairtune, queued):
    refused = fairtune("runs", "delete", queued, status=2)
    assert "--yes" in refused.err
    assert fairtune("runs", "show", queued, "--json").json["id"] == queued
    assert fairtune("runs", "delete", queued, "--yes").out == f"{queued} is deleted\n"
    assert queued in fairtune("runs", "delete", queued, "--yes", status=6).err


def test_a_deletion_as_json(fairtune, queued):
    deleted = fairtune("runs", "delete", queued, "--yes", "--json").json
    assert deleted == {"id": queued, "deleted": True}


def test_checkpoints(api, fairtune, finished, queued):
    header, line = fairtune("runs", "checkpoints", finished).out.splitlines()
    assert header.split()[:3] == ["STEP", "EPOCH", "BEST"]
    assert line.split()[:3] == ["90", "9", "yes"]
    answer = api.http.get(f"/v1/runs/{finished}/checkpoints").json()["data"]
    assert fairtune("runs", "checkpoints", finished, "--json").json == answer
    nothing = fairtune("runs", "checkpoints", queued)
    assert (nothing.out, nothing.err) == ("", "The run has no checkpoint.\n")
