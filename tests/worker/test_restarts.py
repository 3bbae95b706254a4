"""A job that is started more than once: in one directory, or in another with what was saved."""

import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from service.domain.job import Job
from service.domain.states import FailureReason
from service.fairness import BiasReport
from tests.support.train_jobs import (
    board_scalars,
    make_job,
    of_type,
    read_json,
    rows,
    run_here,
    spec,
)
from worker.modeling import load
from worker.runtime.launch import to_failure
from worker.training import checkpoints
from worker.training.loop import Trainer
from worker.training.padded import Padded

SPEC = spec(training={"logging_steps": 1, "packing": "none"})
"""12 steps, 6 an epoch, of 4 rows in 2 forward passes; each step is logged."""


def change(job, **fields):
    """What a supervisor does to job.json between two starts in one directory."""
    content = Job.read(job).model_copy(update=fields)
    (job / "job.json").write_text(content.model_dump_json())


def no_memory(*_args, **_more):
    """What torch itself raises on a CPU."""
    torch.empty(1 << 60, dtype=torch.uint8)


def limit_memory(monkeypatch, *, train=99, evaluate=99, from_call=0):
    """Have the loop's memory suffice for so many rows a pass; returns the sizes of the passes."""
    sizes = []

    loss_sum = Padded.loss_sum

    def limited(self, micro):
        training = torch.is_grad_enabled()
        sizes.append((training, len(micro)))
        if len(micro) > (train if training else evaluate) and len(sizes) > from_call:
            no_memory()
        return loss_sum(self, micro)

    monkeypatch.setattr(Padded, "loss_sum", limited)
    return sizes


def board_steps(job, tag):
    assert len(list((job / "tensorboard").iterdir())) == 1
    return [step for step, _ in board_scalars(job / "tensorboard", tag)]


def series(emitted, name):
    """The metric as the service keeps it: what a start rewinds past is superseded."""
    values = {}
    for event in emitted:
        if event.type == "rewound":
            values = {step: value for step, value in values.items() if step <= event.step}
        elif event.type == "metrics" and name in event.values:
            assert event.step not in values or values[event.step] == event.values[name]
            values[event.step] = event.values[name]
    return values


@pytest.fixture(scope="module")
def whole(models_dir, tmp_path_factory):
    """A run that nobody disturbed: directory and events."""
    directory = make_job(tmp_path_factory.mktemp("whole"), models_dir, SPEC)
    status, emitted = run_here(directory)
    assert status == EXIT_DONE
    return directory, emitted


def test_a_first_start_is_no_rewinding(whole):
    _, emitted = whole
    assert of_type(emitted, "rewound") == []
    progress = of_type(emitted, "progress")
    assert (progress[0].step, progress[0].total_steps) == (0, 12)


def test_a_checkpoint_is_announced_before_it_is_written(whole):
    _, emitted = whole
    saving = [n for n, event in enumerate(emitted) if event.type == "progress" and event.saving]
    assert [emitted[n + 1].type for n in saving] == ["checkpoint", "checkpoint", "phase"]
    assert emitted[saving[-1] - 1].phase == "saving"
    assert [event.step for event in of_type(emitted, "progress")][-1] == 12


def test_an_attempt_without_a_checkpoint_rewinds_to_the_start(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, SPEC, token=2)
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    assert [event.step for event in of_type(emitted, "rewound")] == [0]
    kinds = [event.type for event in emitted]
    assert kinds.index("rewound") < kinds.index("metrics")
    after = emitted[kinds.index("rewound") + 1]
    assert (after.type, after.step, after.total_steps) == ("progress", 0, 12)


# -- out of memory ---------------------------------------------------------------------------------


@pytest.mark.extended
def test_too_many_rows_to_train_on_it_goes_on_with_fewer_in_the_same_place(
    models_dir, tmp_path, monkeypatch, whole
):
    job = make_job(tmp_path, models_dir, SPEC)
    with monkeypatch.context() as patched:
        # Epoch 1 is 12 passes for training and 2 for validation; the 8th step then fails.
        limit_memory(patched, train=1, from_call=16)
        status, emitted = run_here(job)
    assert status == EXIT_FAILED
    failure = emitted[-1]
    assert (failure.type, failure.reason, failure.batch) == ("failure", "out_of_memory", "train")
    assert "training with 2 rows per forward pass" in failure.detail
    assert "DefaultCPUAllocator" in failure.detail

    change(job, train_batch_size=1, resume_from="checkpoints/checkpoint-6")
    sizes = limit_memory(monkeypatch, train=1)
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    # 6 steps of 4 rows all the same, one row a pass.
    assert Counter(size for training, size in sizes if training) == {1: 24}
    assert [event.step for event in of_type(emitted, "rewound")] == [6]
    assert list(series(emitted, "loss")) == list(range(1, 13))
    assert list(series(emitted, "eval_loss")) == [6, 12]
    assert board_steps(job, "train/loss") == list(range(1, 13))
    assert board_steps(job, "eval/loss") == [6, 12]
    scored = [(event.target, event.split) for event in of_type(emitted, "evaluation")]
    assert scored == [("base", "test"), ("adapter", "test"), ("adapter", "validation")]
    assert [event.phase for event in of_type(emitted, "phase")][-1] == "done"
    # The rows of a step weigh the same however they are cut; dropout falls differently.
    assert series(emitted, "loss")[12] == pytest.approx(series(whole[1], "loss")[12], rel=0.2)


def test_at_one_row_it_says_that_fewer_cannot_be(models_dir, tmp_path, monkeypatch):
    limit_memory(monkeypatch, train=0)
    job = make_job(tmp_path, models_dir, SPEC, train_batch_size=1)
    status, emitted = run_here(job)
    assert status == EXIT_FAILED
    assert emitted[-1].batch == "train"
    assert "1 row per forward pass, which is the minimum" in emitted[-1].detail


@pytest.mark.extended
def test_too_many_rows_to_validate_on(models_dir, tmp_path, monkeypatch):
    run_spec = spec(
        training={"per_device_eval_batch_size": 4, "num_train_epochs": 1, "packing": "none"}
    )
    job = make_job(tmp_path, models_dir, run_spec)
    with monkeypatch.context() as patched:
        limit_memory(patched, evaluate=2)
        status, emitted = run_here(job)
    assert (status, emitted[-1].reason, emitted[-1].batch) == (EXIT_FAILED, "out_of_memory", "eval")
    assert "evaluation with 4 rows per forward pass" in emitted[-1].detail
    assert of_type(emitted, "checkpoint") == []

    change(job, eval_batch_size=2)
    sizes = limit_memory(monkeypatch, evaluate=2)
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    assert Counter(size for training, size in sizes if not training) == {2: 4}
    assert Counter(size for training, size in sizes if training) == {2: 12}
    assert [event.step for event in of_type(emitted, "rewound")] == [0]
    assert series(emitted, "loss").keys() == {2, 4, 6}


@pytest.mark.extended
@pytest.mark.parametrize("target", ["base", "adapter"])
def test_too_many_rows_to_score(models_dir, tmp_path, monkeypatch, target):
    from worker.scoring import evaluate

    job = make_job(tmp_path, models_dir, SPEC, eval_batch_size=3)
    score, budgets = evaluate.score, []

    def scores(model, items, *, token_budget, **more):
        budgets.append(token_budget)
        if len(budgets) == (1 if target == "base" else 2):
            no_memory()
        return score(model, items, token_budget=token_budget, **more)

    monkeypatch.setattr(evaluate, "score", scores)
    status, emitted = run_here(job)
    assert (status, emitted[-1].reason, emitted[-1].batch) == (EXIT_FAILED, "out_of_memory", "eval")
    assert "evaluation with 3 rows per forward pass" in emitted[-1].detail
    assert set(budgets) == {3 * SPEC.training.max_seq_length}


def test_too_little_memory_to_load_is_no_batchs(models_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "load_base", no_memory)
    status, emitted = run_here(make_job(tmp_path, models_dir, SPEC))
    assert (status, emitted[-1].reason, emitted[-1].batch) == (EXIT_FAILED, "out_of_memory", None)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_has_many_names(error):
    assert to_failure(error).reason == FailureReason.OUT_OF_MEMORY


# -- the base model's scores -----------------------------------------------------------------------


def test_base_scores_that_are_there_are_not_made_again(models_dir, tmp_path, monkeypatch, whole):
    from worker.scoring import evaluate

    scored = []
    score = evaluate.score
    monkeypatch.setattr(evaluate, "score", lambda *a, **k: scored.append(1) or score(*a, **k))
    job = make_job(tmp_path, models_dir, SPEC, token=2)
    (job / "evaluations").mkdir()
    given = job / "evaluations" / "base-test.parquet"
    shutil.copy(whole[0] / "evaluations" / "base-test.parquet", given)
    before = given.read_bytes()
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    assert len(scored) == 2
    assert [event.target for event in of_type(emitted, "evaluation")] == ["adapter"] * 2
    assert "baseline" in [event.phase for event in of_type(emitted, "phase")]
    assert given.read_bytes() == before
    assert "evaluations/base-test.parquet" in {e.file.path for e in of_type(emitted, "artifact")}
    report, expected = (
        BiasReport.model_validate_json((one / "bias_report.json").read_text())
        for one in (job, whole[0])
    )
    assert report.overall == expected.overall
    assert report.groups == expected.groups
    actual, expected_weights = (
        load_file(one / "adapter_model.safetensors") for one in (job, whole[0])
    )
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected_weights.items())


@pytest.mark.extended
def test_base_scores_that_do_not_fit_are_made_again(models_dir, tmp_path, whole):
    job = make_job(tmp_path, models_dir, SPEC, rows()[:-1])
    (job / "evaluations").mkdir()
    shutil.copy(whole[0] / "evaluations" / "base-test.parquet", job / "evaluations")
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    targets = [event.target for event in of_type(emitted, "evaluation")]
    assert targets == ["base", "adapter", "adapter"]
    ids = pq.read_table(job / "evaluations" / "base-test.parquet")["id"].to_pylist()
    assert ids == [row["id"] for row in rows()[:-1] if row["split"] == "test"]


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def resumed(whole, models_dir, tmp_path):
    """A job to resume from step 12 with both checkpoints of the undisturbed run beside it."""
    job = make_job(tmp_path, models_dir, SPEC, token=2, resume_from="checkpoints/checkpoint-12")
    shutil.copytree(whole[0] / "checkpoints", job / "checkpoints")
    return job


def test_past_a_broken_checkpoint_it_goes_on_from_the_one_before(resumed, whole):
    place = resumed / "checkpoints"
    # A later one that job.json does not name was never announced.
    shutil.copytree(place / "checkpoint-12", place / "checkpoint-13")
    (place / "checkpoint-12" / "optimizer.safetensors").write_bytes(b"")
    status, emitted = run_here(resumed)
    assert status == EXIT_DONE
    warnings = [event for event in of_type(emitted, "warning") if event.code == "checkpoint_broken"]
    assert len(warnings) == 1
    assert "checkpoint-12/optimizer.safetensors does not match the manifest" in warnings[0].detail
    assert [event.step for event in of_type(emitted, "rewound")] == [6]
    actual, expected_weights = (
        load_file(one / "adapter_model.safetensors") for one in (resumed, whole[0])
    )
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected_weights.items())
    checkpoints.verify(place / "checkpoint-12")


def test_without_a_whole_checkpoint_another_attempt_must_fetch_them(resumed):
    (resumed / "checkpoints/checkpoint-12/manifest.json").unlink()
    shutil.rmtree(resumed / "checkpoints/checkpoint-6")
    (resumed / "checkpoints/checkpoint-6").mkdir()
    status, emitted = run_here(resumed)
    assert status == EXIT_FAILED
    assert (emitted[-1].type, emitted[-1].reason) == ("failure", "crashed")
    assert emitted[-1].detail.startswith("Cannot resume: checkpoint-12")
    assert "checkpoint-6" in emitted[-1].detail
    assert of_type(emitted, "rewound") == []


def test_a_run_that_was_at_its_end_scores_and_reports(resumed, whole):
    status, emitted = run_here(resumed)
    assert status == EXIT_DONE
    assert [event.step for event in of_type(emitted, "rewound")] == [12]
    assert of_type(emitted, "metrics") == []
    assert board_steps(resumed, "train/loss") == list(range(1, 13))
    one, other = (read_json(d / "trainer_state.json") for d in (resumed, whole[0]))
    assert one == other


def test_in_the_same_directory_after_a_stop(models_dir, tmp_path, monkeypatch, whole):
    job = make_job(tmp_path, models_dir, SPEC)
    make_step = Trainer._step

    def stopping(self):
        self.stop.requested = self.state.step == 8
        return make_step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stopping)
        status, emitted = run_here(job)
    assert status == EXIT_STOPPED
    assert of_type(emitted, "checkpoint")[-1].step == 9
    # What a start that was killed while it saved leaves.
    (job / "checkpoints" / ".checkpoint-10.tmp").mkdir()
    (job / "evaluations" / "adapter-test.parquet").write_bytes(b"of another start")
    change(job, resume_from="checkpoints/checkpoint-9")
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    assert [event.step for event in of_type(emitted, "rewound")] == [9]
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss"):
        assert series(emitted, name) == series(whole[1], name)
    assert board_steps(job, "train/loss") == list(range(1, 13))
    actual, expected_weights = (
        load_file(one / "adapter_model.safetensors") for one in (job, whole[0])
    )
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected_weights.items())
    assert not [path for path in job.rglob("*") if path.name.startswith(".")]
    pq.read_table(job / "evaluations" / "adapter-test.parquet")
