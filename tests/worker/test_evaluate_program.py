"""`python -m worker.programs.evaluate JOB_DIR`: weights of a run scored again, on any rows."""

import math
import shutil

import pyarrow.parquet as pq
import pytest

from service.domain.events import EXIT_DONE, EXIT_FAILED
from tests.support.train_jobs import events, make_job, of_type, read_json, rows, run, run_here, spec
from worker.data.rows import Row, sample
from worker.scoring import labels

SPEC = spec(
    training={"per_device_eval_batch_size": 4},
    evaluation={"splits": ["validation", "test"]},
)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def finished(models_dir, tmp_path_factory):
    """A run of 12 steps with checkpoints at 6 and 12."""
    directory = make_job(tmp_path_factory.mktemp("finished"), models_dir, SPEC)
    status, _ = run_here(directory)
    assert status == EXIT_DONE
    return directory


def chosen(finished):
    return read_json(finished / "trainer_state.json")["best_global_step"]


def order(directory, models, weights=None, dataset_rows=None, run_spec=SPEC, **task):
    """An evaluation's job directory, as the supervisor lays it out."""
    fields = {
        "target": "base" if weights is None else "adapter",
        "step": None,
        "dataset_id": "ds_1",
        "split": "test",
        "template": "tiny",
        "labels": ["hate", "normal"],
    }
    job = make_job(
        directory,
        models,
        run_spec,
        dataset_rows,
        kind="evaluate",
        task=fields | task,
        adapter=None if weights is None else "adapter",
    )
    if weights is not None:
        (job / "adapter").mkdir()
        for name in ADAPTER:
            shutil.copy(weights / name, job / "adapter")
    return job


def scores(directory, name):
    return pq.read_table(directory / "evaluations" / f"{name}.parquet").to_pylist()


def evaluated(job):
    status, emitted = run_here(job, "evaluate")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()
    (event,) = of_type(emitted, "evaluation")
    return event, emitted


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_adapters_scores_are_those_that_its_run_found(finished, models_dir, tmp_path, split):
    job = order(tmp_path, models_dir, finished, split=split, step=chosen(finished))
    event, emitted = evaluated(job)
    assert scores(job, f"adapter-{split}") == scores(finished, f"adapter-{split}")
    (own,) = (
        event
        for event in of_type(events(finished), "evaluation")
        if (event.target, event.split) == ("adapter", split)
    )
    assert event.metrics == own.metrics
    assert (event.target, event.step, event.template) == ("adapter", chosen(finished), "tiny")
    assert {event.type for event in emitted} == {"phase", "progress", "evaluation"}


def test_the_base_models_scores_are_those_from_before_the_training(finished, models_dir, tmp_path):
    job = order(tmp_path, models_dir)
    event, _ = evaluated(job)
    assert scores(job, "base-test") == scores(finished, "base-test")
    assert (event.target, event.step) == ("base", None)


def test_a_checkpoint_is_scored_with_its_own_weights(finished, models_dir, tmp_path):
    emitted = {}
    for step in (6, 12):
        weights = finished / f"checkpoints/checkpoint-{step}"
        job = order(tmp_path / str(step), models_dir, weights, target="checkpoint", step=step)
        evaluated(job)
        emitted[step] = [row["score"] for row in scores(job, "checkpoint-test")]
        assert {row["checkpoint"] for row in scores(job, "checkpoint-test")} == {step}
    own = [row["score"] for row in scores(finished, "adapter-test")]
    (other_step,) = {6, 12} - {chosen(finished)}
    assert emitted[chosen(finished)] == own
    assert emitted[other_step] != own


def test_rows_of_another_dataset_are_scored_against_the_runs_labels(finished, models_dir, tmp_path):
    dataset_rows = rows(2, 0, 6)
    for row in dataset_rows:
        row["label"] = "hate" if row["split"] == "test" and row["id"] != "test-0" else None
    job = order(tmp_path, models_dir, finished, dataset_rows, step=12)
    event, _ = evaluated(job)
    table = scores(job, "adapter-test")
    assert [row["id"] for row in table] == [f"test-{number}" for number in range(6)]
    for row in table:
        assert row["probability:hate"] + row["probability:normal"] == pytest.approx(1)
    assert event.metrics["fpr"] is None  # nothing but hate
    assert event.metrics["recall"] is not None


def test_rows_without_labels_get_predictions_and_no_figures(finished, models_dir, tmp_path):
    dataset_rows = [row | {"label": None} for row in rows(2, 0, 6)]
    job = order(tmp_path, models_dir, finished, dataset_rows, step=12)
    event, _ = evaluated(job)
    assert event.metrics == {}
    table = scores(job, "adapter-test")
    assert len(table) == 6
    whole = {row["id"]: row["score"] for row in scores(finished, "adapter-test")}
    # In batches of other rows, hence not to the last bit.
    expected = pytest.approx([whole[row["id"]] for row in table], abs=1e-5)
    assert [row["score"] for row in table] == expected
    assert {row["label"] for row in table} == {None}
    assert {row["prediction"] for row in table} <= {"hate", "normal"}


def test_a_sample_is_the_same_rows_with_the_same_scores(finished, models_dir, tmp_path):
    whole = {row["id"]: row["score"] for row in scores(finished, "adapter-test")}
    job = order(tmp_path, models_dir, finished, max_samples=5, step=12)
    _, emitted = evaluated(job)
    table = scores(job, "adapter-test")
    assert len(table) == 5
    for row in table:
        assert row["score"] == pytest.approx(whole[row["id"]], abs=1e-6)
    progress = of_type(emitted, "progress")
    assert [(event.step, event.total_steps) for event in progress] == [(0, 5), (5, 5)]


def row(number):
    return Row(f"row-{number}", "", None, None, None, None, None, "test")


def test_samples_lie_within_one_another_in_the_rows_own_order():
    all_rows = [row(number) for number in range(40)]
    ten, twenty = sample(all_rows, 10), sample(all_rows, 20)
    assert len(ten) == 10
    assert set(ten) < set(twenty)
    assert [event for event in all_rows if event in ten] == ten
    assert sample(all_rows[::-1], 10) == ten[::-1]
    # Neither the first ones nor every fourth: rows often alternate.
    assert ten not in (all_rows[:10], all_rows[::4])
    assert [sample(all_rows, most) for most in (None, 40, 99)] == [all_rows] * 3


def test_every_other_second_it_says_how_far_it_is(finished, models_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.scoring.evaluate.PROGRESS_INTERVAL_SECONDS", -math.inf)
    job = order(tmp_path, models_dir, finished, step=12)
    _, emitted = evaluated(job)
    done = [event.step for event in of_type(emitted, "progress")]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 12)
    assert len(set(done)) > 2
    assert any(event.eta_seconds is not None for event in of_type(emitted, "progress"))
    phases = [event.phase for event in of_type(emitted, "phase")]
    assert phases == ["starting", "loading", "evaluating", "done"]


def test_too_little_memory_is_the_evaluations(finished, models_dir, tmp_path, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(labels, "_trie_log_likelihoods", no_memory)
    status, emitted = run_here(order(tmp_path, models_dir, finished), "evaluate")
    assert status == EXIT_FAILED
    assert (emitted[-1].reason, emitted[-1].batch) == ("out_of_memory", "eval")


def test_what_cannot_be_done_is_said(finished, models_dir, tmp_path):
    def failure(job):
        status, emitted = run_here(job, "evaluate")
        assert status == EXIT_FAILED
        return emitted[-1].reason, emitted[-1].detail

    reason, detail = failure(order(tmp_path / "rows", models_dir, dataset_rows=rows(2, 2, 0)))
    assert reason == "invalid_data"
    assert "no rows of the split test" in detail
    reason, detail = failure(make_job(tmp_path / "train", models_dir, SPEC))
    assert reason == "invalid_spec"
    assert "does not say what to evaluate" in detail
    torn = order(tmp_path / "torn", models_dir, finished)
    (torn / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    assert failure(torn)[0] == "crashed"
    of_rank_2 = spec(lora={"r": 2})
    reason, detail = failure(
        order(tmp_path / "rank", models_dir, finished, run_spec=of_rank_2, step=12)
    )
    assert reason == "crashed"
    assert "different layers or rank" in detail


@pytest.mark.extended
def test_two_processes_find_what_one_does(finished, models_dir, tmp_path):
    two = SPEC.model_copy(
        update={"resources": SPEC.resources.model_copy(update={"num_processes": 2})}
    )
    job = order(tmp_path, models_dir, finished, run_spec=two, step=chosen(finished))
    status, emitted = run(job, "evaluate")
    assert status == EXIT_DONE, (job / "training.log").read_text()
    assert len(of_type(emitted, "evaluation")) == 1
    own = [row["score"] for row in scores(finished, "adapter-test")]
    assert [row["score"] for row in scores(job, "adapter-test")] == pytest.approx(own, abs=1e-6)
