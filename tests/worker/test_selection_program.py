"""Complete runs that choose their weights or their threshold on validation rows."""

import csv
import io

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from service.domain.job import Job
from service.fairness import BiasReport
from tests.support.fixed_predictions import ODD
from tests.support.train_jobs import TEMPLATE, make_job, of_type, read_json, rows, run_here, spec
from worker.runtime.events import StopSignal
from worker.scoring import evaluate
from worker.training import checkpoints
from worker.training.loop import Trainer

pytestmark = pytest.mark.extended

OFTEN = {
    "num_train_epochs": 6,
    "learning_rate": 0.02,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "save_total_limit": 20,
}
"""36 steps, evaluated and saved at each fourth; what is called hate is not the same at each."""

SHORT = spec(training={"num_train_epochs": 1})

TIMED = ("runtime", "per_second")


def data():
    """24 rows to validate on and 16 to test on; one group's name has odd characters."""
    dataset_rows = rows(24, 24, 16)
    for row in dataset_rows:
        row["group"] = ODD if row["group"] == "lgbtq" else row["group"]
    return dataset_rows


def selecting(caps=(), min_f1=None, select="best_f1_within_caps", **more):
    fairness = {"select": select, "caps": list(caps), "min_f1": min_f1}
    return spec(training=OFTEN, lora={"target_modules": "all-linear"}, fairness=fairness, **more)


def finish(directory, models_dir, run_spec, dataset_rows=None, **fields):
    job = make_job(directory, models_dir, run_spec, dataset_rows or data(), **fields)
    status, emitted = run_here(job)
    assert status == EXIT_DONE, emitted[-1]
    return job, emitted


def evaluated(emitted):
    """The metrics of each evaluation while training, by step."""
    return {
        event.step: event.values
        for event in of_type(emitted, "metrics")
        if "eval_loss" in event.values
    }


def untimed(values):
    return {name: value for name, value in values.items() if not name.endswith(TIMED)}


def learned(job):
    return load_file(job / "adapter_model.safetensors")


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


@pytest.fixture(scope="module")
def free(models_dir, tmp_path_factory):
    """Chosen by F1 alone: directory and events."""
    return finish(tmp_path_factory.mktemp("free"), models_dir, selecting())


@pytest.fixture(scope="module")
def cap(free):
    """One that the best F1 of all breaks, and another evaluation holds."""
    emitted = evaluated(free[1])
    best = max(emitted, key=lambda step: (emitted[step]["eval_f1"], -step))
    for name, worst in emitted[best].items():
        metric, _, group = name.removeprefix("eval_").partition("/")
        others = [values[name] for values in emitted.values() if name in values]
        if group and min(others) < worst:
            return {"group": group, "metric": metric, "max": (min(others) + worst) / 2}
    raise AssertionError(emitted)


@pytest.fixture(scope="module")
def capped(models_dir, tmp_path_factory, cap):
    return finish(tmp_path_factory.mktemp("capped"), models_dir, selecting([cap]))


def test_the_choice_is_the_one_made_by_hand(free, capped, cap):
    emitted = evaluated(free[1])
    # What is chosen changes nothing of what is learned and measured.
    assert {step: untimed(values)["eval_loss"] for step, values in emitted.items()} == {
        step: untimed(values)["eval_loss"] for step, values in evaluated(capped[1]).items()
    }
    name = f"eval_{cap['metric']}/{cap['group']}"
    within = [step for step, values in emitted.items() if values[name] <= cap["max"]]
    for job, allowed in ((free[0], list(emitted)), (capped[0], within)):
        chosen = max(allowed, key=lambda step: (emitted[step]["eval_f1"], -step))
        assert read_json(job / "trainer_state.json")["best_global_step"] == chosen
        directory = job / "checkpoints" / f"checkpoint-{chosen}"
        assert_same_weights(learned(job), checkpoints.read(directory).adapter)
    for step, values in evaluated(capped[1]).items():
        assert values["eval_feasible"] == float(step in within)
    assert not [
        entry for entry in of_type(capped[1], "warning") if entry.code == "nothing_within_caps"
    ]


def test_the_series_are_those_of_the_weights_chosen(capped):
    """Scored again after training, those give the same figures, row by row."""
    job, emitted = capped
    step = read_json(job / "trainer_state.json")["best_global_step"]
    table = pq.read_table(job / "evaluations/adapter-validation.parquet").to_pylist()
    values = evaluated(emitted)[step]
    right = [row["label"] == row["prediction"] for row in table]
    assert values["eval_accuracy"] == pytest.approx(sum(right) / 24)
    for group in (ODD, "mexican"):
        for metric, label in (("fpr", "normal"), ("fnr", "hate")):
            wrong = [
                row["prediction"] != label
                for row in table
                if row["group"] == group and row["label"] == label
            ]
            assert values[f"eval_{metric}/{group}"] == pytest.approx(sum(wrong) / len(wrong))
    # The rest were scored on validation alone.
    scored = [(event.target, event.split, event.step) for event in of_type(emitted, "evaluation")]
    assert scored == [
        ("base", "test", None),
        ("adapter", "test", step),
        ("adapter", "validation", step),
    ]


def test_by_the_loss_nothing_is_scored_while_training(models_dir, tmp_path, monkeypatch, free):
    score, calls = evaluate.score, []
    monkeypatch.setattr(evaluate, "score", lambda *a, **k: calls.append(1) or score(*a, **k))
    job, emitted = finish(tmp_path, models_dir, selecting(select="best_metric"))
    assert len(calls) == 3  # the base model on test, the tuned one there and on validation
    for step, values in evaluated(emitted).items():
        assert set(values) == {"eval_loss", "eval_runtime", "eval_samples_per_second"}
        assert values["eval_loss"] == evaluated(free[1])[step]["eval_loss"]
    losses = {step: values["eval_loss"] for step, values in evaluated(emitted).items()}
    state = read_json(job / "trainer_state.json")
    assert state["best_global_step"] == min(losses, key=lambda step: losses[step])
    assert state["best_metric"] == min(losses.values())


def test_where_nothing_is_within_it_is_said_what_is_broken(models_dir, tmp_path):
    caps = [{"group": "mexican", "metric": "fpr", "max": 0.0}]
    caps += [{"group": "mexican", "metric": "fnr", "max": 0.0}]
    run_spec = spec(
        training={"num_train_epochs": 1, "learning_rate": 1e-6},
        fairness={"select": "best_f1_within_caps", "caps": caps},
    )
    job, emitted = finish(tmp_path, models_dir, run_spec)
    (detail,) = [
        entry.detail for entry in of_type(emitted, "warning") if entry.code == "nothing_within_caps"
    ]
    values = evaluated(emitted)[6]
    assert (values["eval_feasible"], values["eval_violation"] > 0) == (0.0, True)
    assert "of step 6: " in detail
    assert "of mexican is" in detail
    assert "(cap 0)" in detail
    assert read_json(job / "trainer_state.json")["best_global_step"] == 6


def test_gone_on_from_the_middle_it_chooses_the_same(
    models_dir, tmp_path, monkeypatch, cap, capped
):
    job = make_job(tmp_path, models_dir, selecting([cap]), data())
    make_step = Trainer._step

    def stopping(self):
        self.stop.requested = self.state.step == 25
        return make_step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stopping)
        status, before = run_here(job)
    assert status == EXIT_STOPPED
    assert of_type(before, "checkpoint")[-1].step == 26
    content = Job.read(job).model_copy(update={"resume_from": "checkpoints/checkpoint-26"})
    (job / "job.json").write_text(content.model_dump_json())
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    assert_same_weights(learned(job), learned(capped[0]))
    resumed, whole = (read_json(path / "eval_results.json") for path in (job, capped[0]))
    assert untimed(resumed) == untimed(whole)
    states = [
        checkpoints.read(directory / "checkpoints/checkpoint-36").state
        for directory in (job, capped[0])
    ]
    assert states[0].best_standing == states[1].best_standing
    assert states[0].best_standing is not None
    expected = {step: untimed(values) for step, values in evaluated(capped[1]).items()}
    assert {step: untimed(values) for step, values in evaluated(emitted).items()} == expected
    # Whichever steps they were saved at, each named the best so far.
    best = {event.step: event.best_step for event in of_type(emitted, "checkpoint")}
    assert best.items() >= {e.step: e.best_step for e in of_type(capped[1], "checkpoint")}.items()


def test_too_many_rows_to_score_while_training(models_dir, tmp_path, monkeypatch):
    score, calls = evaluate.score, []

    def scores(*arguments, **more):
        calls.append(1)
        if len(calls) == 2:  # the first is the base model's
            torch.empty(1 << 60, dtype=torch.uint8)
        return score(*arguments, **more)

    monkeypatch.setattr(evaluate, "score", scores)
    job = make_job(tmp_path, models_dir, selecting(), data(), eval_batch_size=3)
    status, emitted = run_here(job)
    assert (status, emitted[-1].reason, emitted[-1].batch) == (EXIT_FAILED, "out_of_memory", "eval")
    assert "evaluation with 3 rows per forward pass" in emitted[-1].detail
    assert [event.phase for event in of_type(emitted, "phase")][-1] == "training"


# -- thresholds ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(models_dir, tmp_path_factory, cap):
    run_spec = selecting([cap], min_f1=0.1, evaluation={"threshold": "fitted"})
    return finish(tmp_path_factory.mktemp("fitted"), models_dir, run_spec)


def f1_and_rates(table, threshold):
    """By hand: F1, and by group and metric errors and rows."""
    called = [row["score"] >= threshold for row in table]
    hateful = [row["label"] == "hate" for row in table]
    both = sum(a and b for a, b in zip(called, hateful, strict=True))
    f1 = 2 * both / (sum(called) + sum(hateful))
    rates = {}
    for row, positive, truth in zip(table, called, hateful, strict=True):
        if row["group"] is not None:
            errors, count = rates.get((row["group"], "fnr" if truth else "fpr"), (0, 0))
            emitted = (errors + (positive != truth), count + 1)
            rates[row["group"], "fnr" if truth else "fpr"] = emitted
    return f1, rates


def test_the_report_is_at_the_fitted_threshold(fitted, cap):
    job, _ = fitted
    report = BiasReport.model_validate_json((job / "bias_report.json").read_text())
    at = report.settings.threshold
    assert (report.meta.threshold, report.meta.split) == ("fitted", "test")
    test = pq.read_table(job / "evaluations/adapter-test.parquet").to_pylist()
    f1, rates = f1_and_rates(test, at)
    assert report.overall.tuned.f1.value == pytest.approx(f1)
    for group in report.groups:
        for metric in ("fpr", "fnr"):
            measured = getattr(group.tuned, metric)
            assert (measured.numerator, measured.denominator) == rates[group.group, metric]
    # No other threshold does better on validation.
    validation = pq.read_table(job / "evaluations/adapter-validation.parquet").to_pylist()

    def violation(threshold):
        errors, count = f1_and_rates(validation, threshold)[1][cap["group"], cap["metric"]]
        f1 = f1_and_rates(validation, threshold)[0]
        return max(0.0, errors / count - cap["max"]) + max(0.0, 0.1 - f1)

    mine = (-violation(at), f1_and_rates(validation, at)[0])
    for row in validation:
        for threshold in (row["score"], row["score"] + 1e-9):
            assert mine >= (-violation(threshold) - 1e-12, f1_and_rates(validation, threshold)[0])
    # The file says what the model finds most probable, whatever threshold is fitted to it.
    for row in test:
        hate = row["probability:hate"] >= row["probability:normal"]
        assert row["prediction"] == ("hate" if hate else "normal")


def test_while_training_each_checkpoint_has_a_threshold_of_its_own(fitted):
    job, emitted = fitted
    report = BiasReport.model_validate_json((job / "bias_report.json").read_text())
    chosen = read_json(job / "trainer_state.json")["best_global_step"]
    assert evaluated(emitted)[chosen]["eval_threshold"] == pytest.approx(report.settings.threshold)
    assert len({values["eval_threshold"] for values in evaluated(emitted).values()}) > 1


def test_results_have_both_thresholds_figures(fitted, capped):
    for job, rule in ((fitted[0], "fitted"), (capped[0], "argmax")):
        report = BiasReport.model_validate_json((job / "bias_report.json").read_text())
        results = read_json(job / "eval_results.json")
        by_rule = {entry.rule: entry for entry in report.thresholds}
        assert report.meta.threshold == rule
        assert results["threshold_fitted"] == by_rule["fitted"].threshold
        assert results["test_f1"] == by_rule[rule].overall.f1.value
        assert results["test_f1_fitted"] == by_rule["fitted"].overall.f1.value
        assert results["test_fpr_fitted"] == by_rule["fitted"].overall.fpr.value
        assert all(isinstance(value, int | float) for value in results.values())


def test_the_report_comes_in_all_its_forms(capped):
    job, emitted = capped
    announced = {event.file.path for event in of_type(emitted, "artifact")}
    assert {"bias_report.html", "performance_metrics.csv", "bias_metrics.csv"} <= announced
    performance = list(
        csv.DictReader(io.StringIO((job / "performance_metrics.csv").read_text("utf-8")))
    )
    assert {f"{ODD}_fpr", "accuracy", "strategy"} <= set(performance[0])
    page = (job / "bias_report.html").read_text("utf-8")
    report = BiasReport.model_validate_json((job / "bias_report.json").read_text("utf-8"))
    texts = {row["id"]: row["text"] for row in data()}
    for mistake in report.worst_mistakes:
        assert texts[mistake.id] in page


def test_the_report_says_what_the_model_was_shown(models_dir, tmp_path):
    dataset_rows = data()
    longest = next(row for row in dataset_rows if row["split"] == "test")
    longest["text"] = longest["text"] * 40
    warning = {"code": "shared_rows", "detail": "Rows stand in two splits.", "count": 3}
    job, _ = finish(tmp_path, models_dir, SHORT, dataset_rows, dataset_warnings=[warning])
    report = BiasReport.model_validate_json((job / "bias_report.json").read_text())
    assert report.shown.user == 'Text: "$text"'
    assert (report.shown.group, report.shown.truncated) == (False, 1)
    assert report.base_shown == report.shown  # one template for both, cut alike
    assert report.data.without_label == 0
    assert (report.meta.dataset_id, report.meta.base_template) == ("ds_1", "tiny")
    assert [entry.detail for entry in report.warnings if entry.code == "shared_rows"] == [
        "Rows stand in two splits."
    ]
    for target, split, count in (
        ("base", "test", 1),
        ("adapter", "test", 1),
        ("adapter", "validation", 0),
    ):
        file = pq.read_schema(job / f"evaluations/{target}-{split}.parquet")
        assert file.metadata[b"fairtune"] == b'{"truncated": %d}' % count


def test_a_sample_of_rows_is_answered_freely(monkeypatch, models_dir, tmp_path):
    """On the split of the report; in batches that the evaluation's memory suffices for."""
    words = {"completion": "$label", "labels": {"hate": "bad", "normal": "good"}}
    template = TEMPLATE.model_copy(update=words)
    run_spec = selecting(evaluation={"splits": ["validation", "test"]})
    job, _ = finish(tmp_path / "whole", models_dir, run_spec, template=template)
    report = BiasReport.model_validate_json((job / "bias_report.json").read_text("utf-8"))
    sample = report.format_sample
    # It has learned to say one of two words, the one that it thinks the likelier.
    assert (sample.rows, sample.outside.numerator) == (16, 0)
    assert (sample.disagree.numerator, sample.disagree.denominator) == (0, 16)

    def lacks(*_args, **_more):
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(evaluate, "sample_answers", lacks)
    status, emitted = run_here(
        make_job(tmp_path / "lacks", models_dir, SHORT, data(), eval_batch_size=2)
    )
    assert (status, emitted[-1].reason, emitted[-1].batch) == (EXIT_FAILED, "out_of_memory", "eval")
    assert "evaluation with 2 rows per forward pass" in emitted[-1].detail
    assert [event.phase for event in of_type(emitted, "phase")][-1] == "evaluating"


def test_told_to_stop_while_the_model_writes_it_stops(monkeypatch, models_dir, tmp_path):
    sample = evaluate.sample_answers

    def stopped(*arguments, tick, **more):
        def request_stop(done):
            stops[-1].requested = True
            tick(done)

        return sample(*arguments, tick=request_stop, **more)

    monkeypatch.setattr(evaluate, "sample_answers", stopped)
    stops = []
    initialize = StopSignal.__init__
    monkeypatch.setattr(StopSignal, "__init__", lambda self: stops.append(self) or initialize(self))
    job = make_job(tmp_path, models_dir, SHORT, data())
    status, _ = run_here(job)
    assert status == EXIT_STOPPED
    assert not (job / "bias_report.json").exists()


def test_without_a_test_split_there_is_no_report_though_validation_is_scored(models_dir, tmp_path):
    dataset_rows = [row for row in data() if row["split"] != "test"]
    job, emitted = finish(tmp_path, models_dir, SHORT, dataset_rows)
    assert [(e.target, e.split) for e in of_type(emitted, "evaluation")] == [
        ("adapter", "validation")
    ]
    assert not (job / "bias_report.json").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fairness": {"select": "best_f1_within_caps"}}, "fairness.select best_f1_within_caps"),
        ({"evaluation": {"threshold": "fitted"}}, "evaluation.threshold fitted"),
    ],
)
def test_a_job_by_hand_without_anything_to_choose_by_fails(models_dir, tmp_path, changes, says):
    dataset_rows = data()
    for row in dataset_rows:
        row["label"] = None if row["split"] == "validation" else row["label"]
    job = make_job(tmp_path, models_dir, spec(**changes), dataset_rows)
    status, emitted = run_here(job)
    assert (status, emitted[-1].reason) == (EXIT_FAILED, "invalid_spec")
    assert emitted[-1].detail.startswith(f"{says} needs a validation split with labels")
