"""`fairtune runs create` and `clone`: options, files, `--set`, dry runs, waiting."""

import json
import signal

import pytest

from service.domain.states import JobStatus
from tests.support.fake_worker import Worker
from tests.support.installation import wait_until
from tests.support.trained_runs import finish


@pytest.fixture
def create(fairtune, dataset_id):
    """Runs `fairtune runs create` on the sample, by default without starting anything."""

    def run(*arguments, status=0, dry=True, **options):
        more = ("--dry-run", "--json") if dry else ()
        arguments = ("--dataset", dataset_id, "-m", "tiny", *arguments, *more)
        return fairtune("runs", "create", *arguments, status=status, **options)

    return run


def test_a_run_is_created_from_options(api, create):
    ended = create(
        *("--preset", "quick_test", "--name", "by options", "--seed", "7", "--tag", "a"),
        *("--tag", "b", "--template", "label_only", "--set", "training.learning_rate=3e-4"),
        dry=False,
    )
    spec = api.http.get(f"/v1/runs/{ended.out.strip()}").json()["spec"]
    expected = {"preset": "quick_test", "name": "by options", "seed": 7, "template": "label_only"}
    assert {name: spec[name] for name in expected} == expected
    assert spec["tags"] == ["a", "b"]
    assert spec["training"]["learning_rate"] == 3e-4
    assert "fairtune runs watch" in ended.err


def test_set_overrides_options_which_override_the_file(create, tmp_path):
    (tmp_path / "spec.yaml").write_text(
        "base_model: other\nseed: 1\nname: from the file\n"
        "training:\n  num_train_epochs: 2\n  eval_strategy: no\n  load_best_model_at_end: false\n"
        "  early_stopping_patience: 0\n"
    )
    changes = ("--set", "training.max_steps=2", "--set", "training.warmup_steps=0")
    plan = create("-f", "spec.yaml", "--seed", "2", *changes).json
    spec = plan["spec"]
    assert (spec["base_model"], spec["seed"], spec["name"]) == ("tiny", 2, "from the file")
    assert (spec["training"]["max_steps"], spec["training"]["num_train_epochs"]) == (2, None)
    assert spec["training"]["eval_strategy"] == "no"
    assert plan["total_steps"] == 2
    assert create("-f", "spec.yaml", "--seed", "2", "--set", "seed=3").json["spec"]["seed"] == 3


def test_a_file_may_come_from_standard_input_and_name_the_dataset(fairtune, dataset_id):
    body = {"dataset_id": dataset_id, "base_model": "tiny", "seed": 5}
    for text in (json.dumps(body), "".join(f"{name}: {value}\n" for name, value in body.items())):
        ended = fairtune("runs", "create", "-f", "-", "--dry-run", "--json", input=text)
        assert ended.json["spec"]["seed"] == 5


def test_a_dry_run_prints_values_steps_and_warnings(api, create):
    count = len(api.http.get("/v1/runs?limit=100").json()["data"])
    printed = create("--set", "training.warmup_steps=1000", "--dry-run", dry=False).out
    fields = dict(line.split(maxsplit=1) for line in printed.split("\n\n")[0].splitlines())
    assert fields["training.warmup_steps"] == "1000"
    assert fields["lora.target_modules"] == '["q_proj", "v_proj"]'
    assert "total steps" in printed
    assert "Warnings" in printed
    assert "warm" in printed.split("Warnings")[1]
    assert len(api.http.get("/v1/runs?limit=100").json()["data"]) == count


def test_last_is_the_newest_dataset(fairtune, dataset_id):
    spec = fairtune("runs", "create", "-d", "last", "-m", "tiny", "--dry-run", "--json").json
    assert spec["spec"]["dataset_id"].startswith("ds_")


@pytest.mark.parametrize(
    ("changes", "status", "line"),
    [
        (("--set", "training.lerning_rate=1"), 1, "/training/lerning_rate: unknown field; did you"),
        (("--set", "learning_rate=1"), 1, "did you mean /training/learning_rate?"),
        (("--set", "trainig.bf16=true"), 1, "/trainig: unknown field; did you mean training?"),
        (("--set", "training.bf16=yes"), 1, "/training/bf16: must be true or false"),
        (("--set", "training.bf16=True"), 2, "--set training.bf16=True: True is Python"),
        (("--set", "seed"), 2, "write FIELD=VALUE"),
        (("--preset", "quik"), 1, "available presets: default"),
        (("--dataset", "ds_none"), 1, "/dataset_id: "),
        (("--dataset", "data.csv"), 2, "fairtune datasets add data.csv"),
        (("--file", "none.yaml"), 2, "--file none.yaml: No such file"),
        (("--file", "bad.yaml"), 2, "line 2 column 1: the key 'seed' occurs twice"),
        (("--name", "a\ud800"), 2, "not valid UTF-8"),
    ],
)
def test_what_is_wrong_is_refused_in_a_line(create, tmp_path, changes, status, line):
    (tmp_path / "data.csv").write_text("text,label\n")
    (tmp_path / "bad.yaml").write_text("seed: 1\nseed: 2\n")
    refused = create(*changes, status=status)
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1
    assert line in refused.err


def test_each_invalid_field_has_a_line(create):
    refused = create("--set", "seed=x", "--set", "lora.r=-1", status=1)
    assert [line.split(":")[0] for line in refused.err.splitlines()] == ["/seed", "/lora/r"]


def test_dataset_and_model_are_required(fairtune, dataset_id):
    assert "--dataset is missing" in fairtune("runs", "create", "-m", "tiny", status=2).err
    assert "--base-model is missing" in fairtune("runs", "create", "-d", dataset_id, status=2).err


def test_a_clone_has_the_changes(api, fairtune, finished):
    changes = ("--name", "a clone", "--set", "lora.r=2")
    plan = fairtune("runs", "clone", finished, *changes, "--dry-run", "--json").json
    assert (plan["spec"]["name"], plan["spec"]["lora"]["r"]) == ("a clone", 2)
    clone = fairtune("runs", "clone", finished, *changes, "--json").json
    assert (clone["cloned_from"], clone["spec"]["lora"]["r"]) == (finished, 2)
    assert api.http.get(f"/v1/runs/{clone['id']}").json()["status"] == "queued"


def end_of(api, name: str, to: JobStatus, **values) -> None:
    """Act as the worker of the run that a command has created."""

    def run_id():
        runs = api.http.get("/v1/runs", params={"name": name}).json()["data"]
        return runs[0]["id"] if runs else None

    finish(Worker(api.context, wait_until(run_id)), to, **values)


@pytest.mark.parametrize(
    ("to", "values", "status", "line"),
    [
        (JobStatus.SUCCEEDED, {}, 0, ""),
        (
            JobStatus.FAILED,
            {"failure_reason": "invalid_data", "failure_detail": "row 3 is strange."},
            3,
            "failed: row 3 is strange.",
        ),
    ],
)
def test_the_exit_status_tells_how_the_run_ended(api, dataset_id, to, values, status, line):
    name = f"waited for {to}"
    arguments = ("-d", dataset_id, "-m", "tiny", "--name", name, "--wait", "--json")
    process = api.start("runs", "create", *arguments)
    end_of(api, name, to, **values)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert json.loads(out)["status"] == to
    assert line in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_time_limit_leaves_the_run_queued(fairtune, create):
    ended = create("--wait", "--timeout", "0.2", dry=False, status=7)
    assert "it continues" in ended.err.splitlines()[-1]
    assert fairtune("runs", "show", ended.out.strip(), "--json").json["status"] == "queued"


def test_ctrl_c_leaves_the_run_and_says_how_to_cancel_it(api, dataset_id):
    process = api.start("runs", "create", "-d", dataset_id, "-m", "tiny", "--wait")
    run_id = process.stdout.readline().strip()
    assert process.stderr.readline()  # it waits
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"fairtune runs cancel {run_id}" in err
    assert "Traceback" not in err
    assert "Aborted" not in err
    assert api.http.get(f"/v1/runs/{run_id}").json()["status"] == "queued"
