"""From POST to report, with real processes on both settings."""

import hashlib
import io
import json
import signal

import pyarrow.parquet as pq
import pytest

from tests.support.installation import wait_until
from tests.support.tiny_runs import TINY, sample


def test_from_post_to_report(service):
    dataset_id = service.upload(sample())
    service.client.headers["X-Request-ID"] = "the-request"
    run_id = service.submit(dataset_id=dataset_id, **TINY)
    del service.client.headers["X-Request-ID"]
    run = service.wait_for(run_id, "succeeded", "failed")
    assert run["status"] == "succeeded", run["failure"]
    assert (run["step"], run["total_steps"], run["percent"]) == (6, 6, 100.0)
    assert run["attempts"] == 1
    assert run["phase"] == "done"
    assert run["finished_at"] > run["started_at"] > run["created_at"]

    get = service.client.get
    report = get(f"/v1/runs/{run_id}/bias-report").json()
    assert report["meta"]["run_id"] == run_id
    assert report["data"]["rows"] == 30
    assert {group["group"] for group in report["groups"]} == {"lgbtq", "mexican", "middle_east"}
    assert [cap["group"] for cap in report["caps"]] == ["lgbtq", "mexican", "middle_east"]
    assert report["overall"]["base"]["f1"]["value"] is not None

    series = get(f"/v1/runs/{run_id}/metrics").json()["series"]
    assert [point["step"] for point in series["loss"]] == [1, 2, 3, 4, 5, 6]
    assert "eval_loss" in series

    evaluations = get(f"/v1/runs/{run_id}/evaluations").json()["data"]
    assert {(one["target"], one["split"]) for one in evaluations} >= {("base", "test")}
    assert {one["target"] for one in evaluations} & {"adapter", "checkpoint"}
    predictions = get(f"/v1/runs/{run_id}/evaluations/{evaluations[0]['id']}/predictions")
    assert predictions.content[:4] == b"PAR1"

    files = {file["path"]: file for file in get(f"/v1/runs/{run_id}/artifacts").json()["data"]}
    expected = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "trainer_state.json",
        "train_results.json",
        "eval_results.json",
        "all_results.json",
        "training_args.json",
        "README.md",
        "training.log",
        "bias_report.json",
        "bias_report.html",
        "performance_metrics.csv",
        "bias_metrics.csv",
    }
    assert expected <= set(files)
    assert any(path.startswith("tensorboard/") for path in files)
    for path, file in files.items():
        content = get(f"/v1/runs/{run_id}/artifacts/{path}").content
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])
    (checkpoint,) = get(f"/v1/runs/{run_id}/checkpoints").json()["data"]
    assert (checkpoint["step"], checkpoint["is_best"]) == (6, True)
    assert "adapter_model.safetensors" in [file["path"] for file in checkpoint["files"]]

    events = get(f"/v1/runs/{run_id}/events", params={"limit": 1000}).json()["data"]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    statuses = [event["data"]["status"] for event in events if event["type"] == "status"]
    assert statuses == ["queued", "running", "succeeded"]
    assert events[-1]["type"] == "status"
    with service.client.stream(
        "GET", f"/v1/runs/{run_id}/events", headers={"accept": "text/event-stream"}
    ) as stream:
        ids = [json.loads(line[6:])["id"] for line in stream.iter_lines() if line[:6] == "data: "]
    assert ids == [event["id"] for event in events]
    check_logs(service, run_id, events[0]["job_id"])
    check_evaluation(service, run_id)
    # Nothing of the work is left on the worker, soon after the outcome is known.
    wait_until(lambda: not list(service.settings.jobs_dir.iterdir()))


def check_evaluation(service, run_id) -> None:
    """What the run scored with its adapter, scored again by a job of its own."""
    get, url = service.client.get, f"/v1/runs/{run_id}/evaluations"
    run = service.run(run_id)
    found = get(url).json()["data"]
    (own,) = (one for one in found if (one["target"], one["split"]) == ("adapter", "test"))
    made = service.client.post(url, json={}).json()

    def done() -> dict | None:
        one = get(f"{url}/{made['id']}").json()
        return one if one["status"] in ("succeeded", "failed") else None

    again = wait_until(done)
    assert again["status"] == "succeeded", get(f"{url}/{made['id']}/logs").text
    assert (again["percent"], again["step"], again["phase"]) == (100.0, own["step"], "done")
    assert again["metrics"] == own["metrics"]
    tables = [
        pq.read_table(io.BytesIO(get(f"{url}/{one['id']}/predictions").content)).to_pylist()
        for one in (own, again)
    ]
    assert tables[0] == tables[1]
    assert service.run(run_id) == run


def check_logs(service, run_id, job_id) -> None:
    """The request can be followed from the API through the worker into the program."""
    program = service.client.get(f"/v1/runs/{run_id}/logs").text.splitlines()
    log = service.log.read_text().splitlines()
    if service.settings.log_format == "console":
        ids = f"run_id={run_id} job_id={job_id} token=1 request_id=the-request"
        assert ids in program[0]
        assert "program started" in program[0]
        assert [line for line in log if "attempt started" in line and ids in line]
        return
    said = [json.loads(line) for line in program]
    assert said[0]["event"] == "program started"
    assert {line["part"] for line in said} == {"train"}
    lines = [json.loads(line) for line in log]
    worker = [line for line in lines if line["part"] == "worker" and "run_id" in line]
    assert [line["event"] for line in worker] == ["attempt started", "attempt ended"]
    for line in said + worker:
        given = [line[name] for name in ("run_id", "job_id", "token", "request_id")]
        assert given == [run_id, job_id, 1, "the-request"]
    ours = [line for line in lines if line.get("request_id") == "the-request"]
    api = [line for line in ours if line["part"] == "api"]
    assert [line["event"] for line in api] == ["job queued", "request"]
    assert api[0]["job_id"] == job_id
    assert (api[1]["route"], api[1]["status"]) == ("/v1/runs", 201)


@pytest.mark.parametrize("service", ["files"], indirect=True)
def test_what_only_the_worker_can_see_fails_with_reason_and_advice(service):
    dataset_id = service.upload(sample())
    cases = {
        "model_unavailable": TINY | {"base_model": "openai/gpt-oss-20b"},
        "invalid_spec": TINY | {"lora": {"target_modules": ["qq_proj"]}},
    }
    runs = {why: service.submit(dataset_id=dataset_id, **body) for why, body in cases.items()}
    for why, run_id in runs.items():
        run = service.wait_for(run_id, "succeeded", "failed")
        assert run["status"] == "failed"
        assert run["failure"]["reason"] == why
        assert run["failure"]["advice"]
        assert "Traceback" not in json.dumps(run)
        assert run["attempts"] == 1
    assert "qq_proj" in service.run(runs["invalid_spec"])["failure"]["detail"]


def long_run(service) -> str:
    dataset_id = service.upload(sample(train=360))
    longer = {
        "num_train_epochs": 500,
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
    }
    body = TINY | {"training": TINY["training"] | longer}
    run_id = service.submit(dataset_id=dataset_id, **body)
    wait_until(lambda: service.run(run_id)["step"] > 2)
    return run_id


@pytest.mark.extended
def test_cancelling_a_running_run_stops_its_program_and_keeps_what_was_learned(service):
    run_id = long_run(service)
    assert len(service.programs()) == 1
    service.client.post(f"/v1/runs/{run_id}/cancel")
    run = service.wait_for(run_id, "cancelled", "failed", "succeeded")
    assert run["status"] == "cancelled"
    assert service.programs() == []
    checkpoints = service.client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"]
    assert checkpoints[-1]["step"] >= 3


@pytest.mark.extended
def test_a_worker_told_to_stop_returns_its_job_and_another_goes_on(service):
    run_id = long_run(service)
    worker = service.parts[1]
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=60)
    assert service.programs() == []
    run = service.run(run_id)
    assert (run["status"], run["attempts"]) == ("queued", 0)
    stopped_at = service.client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"][-1]["step"]
    service.start("worker")
    wait_until(lambda: service.run(run_id)["step"] > stopped_at)
    service.client.post(f"/v1/runs/{run_id}/cancel")
    service.wait_for(run_id, "cancelled")
    series = service.client.get(f"/v1/runs/{run_id}/metrics", params={"name": "loss"}).json()
    steps = [point["step"] for point in series["series"]["loss"]]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.extended
@pytest.mark.parametrize("service", ["files"], indirect=True)
def test_no_program_outlives_a_killed_worker(service):
    long_run(service)
    (program,) = service.programs()
    worker = service.parts[1]
    worker.kill()
    worker.wait()
    program.wait(timeout=10)
    assert service.programs() == []
