"""`python -m worker.programs.train JOB_DIR` as the supervisor starts it: a child process."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from service.domain.states import Phase
from service.fairness import BiasReport
from tests.support.train_jobs import (
    environment,
    events,
    make_job,
    of_type,
    read_json,
    rows,
    run,
    spec,
    start,
)
from worker.modeling.precision import has_bfloat16

LONG = {"num_train_epochs": 8, "save_total_limit": 20}
"""48 steps, 6 an epoch: time enough to stop in."""


@pytest.fixture(scope="module")
def finished(models_dir, tmp_path_factory):
    """A run with NF4 weights in bfloat16 and gradient checkpointing: directory and events."""
    run_spec = spec(
        quantization={"load_in_4bit": True},
        training={"bf16": True, "gradient_checkpointing": True, "warmup_steps": 8},
        fairness={
            "caps": [{"group": "lgbtq", "metric": "fpr", "max": 0.4}],
            "min_f1": 0.6,
        },
        evaluation={"splits": ["validation", "test"]},
    )
    dataset = rows()
    dataset[0]["text"] = dataset[0]["text"] * 30
    directory = make_job(tmp_path_factory.mktemp("finished"), models_dir, run_spec, dataset)
    status, emitted = run(directory)
    assert status == EXIT_DONE, (directory / "training.log").read_text()
    return directory, emitted


@pytest.fixture(scope="module")
def undisturbed(models_dir, tmp_path_factory):
    """A float32 run of 48 steps with dropout that nobody stops."""
    directory = make_job(tmp_path_factory.mktemp("whole"), models_dir, spec(training=LONG))
    status, emitted = run(directory)
    assert status == EXIT_DONE, (directory / "training.log").read_text()
    return directory, emitted


def test_phases_come_in_their_order(finished):
    _, emitted = finished
    own = [phase for phase in Phase if phase != Phase.MERGING]
    assert [event.phase for event in of_type(emitted, "phase")] == own


def test_every_step_is_reported(finished):
    _, emitted = finished
    progress = of_type(emitted, "progress")
    steps = [event.step for event in progress]
    assert steps == sorted(steps)
    assert set(steps) == set(range(13))
    assert {event.total_steps for event in progress} == {12}
    last = progress[-1]
    assert last.epoch == 2
    assert last.samples_per_second is None or last.samples_per_second > 0
    assert any(event.eta_seconds for event in progress)


def test_metrics_come_at_logging_steps_and_evaluations(finished):
    _, emitted = finished
    metrics = of_type(emitted, "metrics")
    logged = [event for event in metrics if "loss" in event.values]
    assert [event.step for event in logged] == [2, 4, 6, 8, 10, 12]
    assert set(logged[0].values) == {"loss", "learning_rate", "grad_norm", "samples_per_second"}
    # Linear warm-up over 8 steps to 0.01; a step is logged with the rate that it used.
    assert logged[0].values["learning_rate"] == pytest.approx(0.01 / 8)
    evaluated = [event for event in metrics if "eval_loss" in event.values]
    assert [event.step for event in evaluated] == [6, 12]


def test_checkpoints_say_which_is_the_best(finished):
    directory, emitted = finished
    announced = of_type(emitted, "checkpoint")
    assert [event.step for event in announced] == [6, 12]
    for event in announced:
        path = directory / event.path
        assert {file.path for file in event.files} == {file.name for file in path.iterdir()}
        for file in event.files:
            assert hashlib.sha256((path / file.path).read_bytes()).hexdigest() == file.sha256
    losses = {event.step: event.metrics["eval_loss"] for event in announced}
    assert announced[-1].best_step == min(losses, key=lambda step: losses[step])
    assert read_json(directory / "trainer_state.json")["best_metric"] == min(losses.values())


def test_the_result_is_the_files_promised(finished):
    directory, emitted = finished
    announced = {event.file.path: event.file for event in of_type(emitted, "artifact")}
    promised = {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "all_results.json",
        "bias_metrics.csv",
        "bias_report.html",
        "bias_report.json",
        "eval_results.json",
        "performance_metrics.csv",
        "train_results.json",
        "trainer_state.json",
        "training_args.json",
        "evaluations/adapter-test.parquet",
        "evaluations/adapter-validation.parquet",
        "evaluations/base-test.parquet",
        "evaluations/base-validation.parquet",
    }
    assert promised <= set(announced)
    assert any(path.startswith("tensorboard/events.out.tfevents") for path in announced)
    for path, file in announced.items():
        data = (directory / path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)
    leftovers = [path for path in directory.rglob("*") if path.name.startswith(".")]
    assert leftovers == []
    card = (directory / "README.md").read_text()
    assert "library_name: peft" in card
    assert "base_model: tiny-llama" in card
    results = read_json(directory / "all_results.json")
    assert {"train_loss", "eval_loss", "test_f1"} <= set(results)
    assert read_json(directory / "adapter_config.json")["base_model_name_or_path"] == "tiny-llama"


def test_trainer_state_is_one_that_transformers_reads(finished):
    from transformers import TrainerState

    directory, _ = finished
    state = TrainerState.load_from_json(str(directory / "trainer_state.json"))
    assert (state.global_step, state.max_steps) == (12, 12)
    assert {"loss", "step"} <= set(state.log_history[0])


def test_the_adapter_opens_in_peft(finished, load):
    from peft import PeftModel

    directory, _ = finished
    model, _ = load("llama")
    opened = PeftModel.from_pretrained(model, directory)
    assert any("lora_B" in name for name, _ in opened.named_parameters())


def test_tensorboard_has_the_series(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory, _ = finished
    board = EventAccumulator(str(directory / "tensorboard"))
    board.Reload()
    assert {"train/loss", "eval/loss", "train/learning_rate"} <= set(board.Tags()["scalars"])
    assert [value.step for value in board.Scalars("train/loss")] == [2, 4, 6, 8, 10, 12]


def test_every_row_has_a_score_before_and_after(finished):
    directory, emitted = finished
    evaluations = of_type(emitted, "evaluation")
    assert [(event.target, event.split) for event in evaluations] == [
        ("base", "validation"),
        ("base", "test"),
        ("adapter", "validation"),
        ("adapter", "test"),
    ]
    assert {"accuracy", "f1", "auc"} <= set(evaluations[0].metrics)
    test = [row["id"] for row in rows() if row["split"] == "test"]
    for target in ("base", "adapter"):
        table = pq.read_table(directory / f"evaluations/{target}-test.parquet").to_pylist()
        assert [row["id"] for row in table] == test
        for row in table:
            both = (row["probability:hate"], row["probability:normal"])
            assert sum(both) == pytest.approx(1)
            assert row["score"] == both[0]
            assert row["prediction"] == ("hate" if both[0] >= both[1] else "normal")
        chosen = read_json(directory / "trainer_state.json")["best_global_step"]
        assert {row["checkpoint"] for row in table} == {None if target == "base" else chosen}


def test_the_report_is_of_the_test_split_and_certain_of_its_caps(finished):
    directory, _ = finished
    report = BiasReport.model_validate_json((directory / "bias_report.json").read_text())
    assert report.meta.split == "test"
    assert report.data.rows == 12
    assert report.overall.base is not None
    assert [group.group for group in report.groups] == ["lgbtq", "mexican"]
    assert [cap.group for cap in report.caps] == ["lgbtq"]


def test_what_costs_a_night_is_said(finished):
    _, emitted = finished
    warnings = {event.code: event.detail for event in of_type(emitted, "warning")}
    assert set(warnings) - {"no_bfloat16"} == {"rows_truncated", "long_warmup"}
    assert ("no_bfloat16" in warnings) == (not has_bfloat16())
    assert "1 of 24 rows of the train split" in warnings["rows_truncated"]
    assert "8 of 12 steps" in warnings["long_warmup"]
    assert any("in 4 bits" in event.message for event in of_type(emitted, "log"))


def test_training_learns(undisturbed):
    _, emitted = undisturbed
    for name in ("loss", "eval_loss"):
        series = [e.values[name] for e in of_type(emitted, "metrics") if name in e.values]
        print(name, series)
        assert series[-1] < series[0] / 2


def wait_for(directory, true, seconds=60.0):
    """Wait until a condition on the events holds; the events may end in half a line meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        path = directory / "events.jsonl"
        if path.exists() and true(path.read_text()):
            return
        time.sleep(0.005)
    raise AssertionError((directory / "training.log").read_text())


@pytest.mark.extended
def test_stopped_by_term_it_goes_on_to_the_same_weights(models_dir, undisturbed, tmp_path):
    first = make_job(tmp_path / "first", models_dir, spec(training=LONG))
    program = start(first)
    wait_for(first, lambda lines: '"step":9' in lines)
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=30)
    assert program.returncode == EXIT_STOPPED
    emitted = events(first)
    last = of_type(emitted, "checkpoint")[-1]
    assert emitted[-1] == last
    assert 9 <= last.step < 48
    assert of_type(emitted, "progress")[-1].step == last.step

    second = make_job(tmp_path / "second", models_dir, spec(training=LONG), resume_from=last.path)
    shutil.copytree(first / last.path, second / last.path)
    shutil.copytree(first / "evaluations", second / "evaluations")
    status, later = run(second)
    assert status == EXIT_DONE
    scored = [(event.target, event.split) for event in of_type(later, "evaluation")]
    assert scored == [("adapter", "test"), ("adapter", "validation")]
    assert of_type(later, "rewound")[0].step == last.step

    whole, whole_events = undisturbed
    expected = load_file(whole / "adapter_model.safetensors")
    stored = load_file(second / "adapter_model.safetensors")
    assert set(stored) == set(expected)
    assert all(torch.equal(stored[name], tensor) for name, tensor in expected.items())

    def series(*parts):
        return [
            (event.step, name, value)
            for part in parts
            for event in of_type(part, "metrics")
            for name, value in event.values.items()
            if name in ("loss", "eval_loss", "grad_norm", "learning_rate")
        ]

    assert series(emitted, later) == series(whole_events)


def test_when_the_supervisors_pipe_closes_it_is_gone(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, spec(training=LONG))
    with start(job, "--supervised", stdin=subprocess.PIPE) as program:
        wait_for(job, lambda lines: "loading" in lines)
        program.stdin.close()
        assert program.wait(timeout=10) == EXIT_STOPPED
    time.sleep(0.2)
    assert not [event for event in events(job) if event.type == "failure"]


def failed(directory):
    """The failure that a run ends with. Nothing in it is a traceback."""
    status, emitted = run(directory)
    assert status == EXIT_FAILED, (directory / "training.log").read_text()
    failure = emitted[-1]
    assert failure.type == "failure"
    assert "Traceback" not in failure.detail
    assert "Traceback" in (directory / "training.log").read_text()
    return failure


def test_a_model_that_cannot_be_had_fails_at_once(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, spec(base_model="openai/gpt-oss-20b"))
    began = time.monotonic()
    program = subprocess.run(
        [sys.executable, "-m", "worker.programs.train", str(job)],
        cwd=tmp_path,
        # A hub that refuses connections; not HF_HUB_OFFLINE, which would not even try.
        env=environment()
        | {
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_HOME": str(tmp_path / "hf"),
        },
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - began < 30
    assert program.returncode == EXIT_FAILED
    assert program.stderr.decode().startswith("model_unavailable: openai/gpt-oss-20b is not on")
    failure = events(job)[-1]
    assert failure.reason == "model_unavailable"
    assert "is unreachable" in failure.detail


def test_a_target_module_that_is_not_there_is_named(models_dir, tmp_path):
    run_spec = spec(lora={"target_modules": ["q_proj", "qkv_proj"]}, evaluation={"baseline": False})
    failure = failed(make_job(tmp_path, models_dir, run_spec))
    assert failure.reason == "invalid_spec"
    assert "'qkv_proj'" in failure.detail
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in failure.detail


def test_a_loss_that_is_not_finite_is_divergence(models_dir, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(models_dir / "tiny-llama", models / "tiny-llama")
    weights = load_file(models / "tiny-llama" / "model.safetensors")
    weights["lm_head.weight"] = torch.full_like(weights["lm_head.weight"], 3e38)
    save_file(weights, models / "tiny-llama" / "model.safetensors", metadata={"format": "pt"})
    run_spec = spec(evaluation={"baseline": False}, training={"warmup_steps": 0})
    failure = failed(make_job(tmp_path / "job", models, run_spec))
    assert failure.reason == "diverged"
    assert "Step 1:" in failure.detail
    assert "learning rate 0.01" in failure.detail


def test_chat_rows_without_labels_train_and_say_what_is_missing(models_dir, tmp_path):
    dataset = rows(8, 0, 2)
    for row in dataset:
        chat = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": "yes"}]
        row |= {"text": None, "label": None, "messages": json.dumps(chat)}
    job = make_job(
        tmp_path, models_dir, spec(training={"num_train_epochs": 1, "warmup_steps": 0}), dataset
    )
    status, emitted = run(job)
    assert status == EXIT_DONE
    codes = {event.code for event in of_type(emitted, "warning")}
    assert codes == {"no_labels", "no_validation"}
    assert of_type(emitted, "evaluation") == []
    assert not (job / "bias_report.json").exists()
    # No evaluation, no best: the last checkpoint is there all the same.
    assert [(e.step, e.best_step) for e in of_type(emitted, "checkpoint")] == [(2, None)]
    assert (job / "adapter_model.safetensors").exists()
