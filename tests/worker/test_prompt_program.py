"""Prompts in a whole run: all rows are checked before training, and the card has the prompt."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from peft import PeftConfig

from service.domain.errors import ProgramFailure
from service.domain.job import ADAPTER_FILES
from service.domain.prediction import PredictionTask
from service.domain.states import FailureReason
from tests.support.tokenizer_shapes import TEMPLATES
from tests.support.train_jobs import make_job, of_type, run_here, sentence, spec
from worker.runtime.launch import EXIT_DONE

ANSWERS = {"hate": "BAD", "normal": "GOOD"}


def chat(split, number, history=0):
    label = ("hate", "normal")[number % 2]
    turns = [{"role": "system", "content": "Judge the post."}]
    for turn in range(history):
        turns += [
            {"role": "user", "content": sentence(turn, 12)},
            {"role": "assistant", "content": ANSWERS[label]},
        ]
    turns += [
        {"role": "user", "content": f"{sentence(number)} {'never' if label == 'hate' else 'help'}"},
        {"role": "assistant", "content": ANSWERS[label]},
    ]
    return {
        "id": f"{split}-{number}",
        "messages": json.dumps(turns),
        "label": label,
        "group": ("lgbtq", "mexican")[number % 3 % 2],
        "split": split,
    }


def chats(long=("train", "test")):
    counts = {"train": 12, "validation": 6, "test": 8}
    return [
        chat(split, number, history=30 if split in long and number == 3 else 0)
        for split, count in counts.items()
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def model_with(models_dir, tmp_path_factory):
    """Return a function that gives the directory of models with another chat template."""

    def copy(template):
        directory = tmp_path_factory.mktemp("models")
        shutil.copytree(models_dir / "tiny-llama", directory / "tiny-llama")
        (directory / "tiny-llama" / "chat_template.jinja").write_text(template)
        return directory

    return copy


def without_baseline(**changes):
    return spec(evaluation={"baseline": False}, **changes)


def predict_again(trained, models, directory):
    """Predict the test split's chats; see that the run's own scores come out."""
    rows = pq.read_table(trained / "evaluations" / "adapter-test.parquet").to_pylist()
    task = PredictionTask(
        target="adapter",
        step=1,
        merge=None,
        template="tiny",
        positive_label="hate",
        threshold=None,
        labels=["hate", "normal"],
        texts=[],
        messages=[json.loads(row["messages"])[:-1] for row in chats() if row["split"] == "test"],
    )
    job = make_job(
        directory, models, without_baseline(), kind="predict", task=task,
        adapter="adapter", completions=ANSWERS,
    )  # fmt: skip
    (job / "adapter").mkdir()
    for name in ADAPTER_FILES:
        shutil.copy(trained / name, job / "adapter" / name)
    status, emitted = run_here(job, "predict")
    assert status == EXIT_DONE, emitted
    scores = json.loads((job / "predictions.json").read_text())
    assert [pair[0] for pair in scores["probabilities"]] == pytest.approx(
        [row["score"] for row in rows], abs=1e-5
    )
    assert scores["truncated"] == [False] * 3 + [True] + [False] * 4


def test_long_chats_do_not_end_a_run_and_are_counted(model_with, tmp_path):
    models = model_with(TEMPLATES["opens a thought"])
    job = make_job(tmp_path / "job", models, without_baseline(), chats(), completions=ANSWERS)
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    warnings = [(event.code, event.detail) for event in of_type(emitted, "warning")]
    truncated = [detail for code, detail in warnings if code == "turns_truncated"]
    assert [detail.split(" are longer")[0] for detail in truncated] == [
        "1 of 12 rows of the train split",
        "1 of 8 rows of the test split",
    ]
    (note,) = [detail for code, detail in warnings if code == "prompt_note"]
    assert "opens a thought (<think>)" in note
    assert "served_prompt_differs" not in dict(warnings)
    predict_again(job, models, tmp_path / "predictions")
    card = (job / "README.md").read_text()
    assert "add_generation_prompt=True" in card.partition("## Prompt")[2].partition("##")[0]
    assert note in card
    assert json.loads((job / "bias_report.json").read_text())["data"]["rows"] == 8


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_chat_that_the_template_refuses_ends_the_run_before_training(model_with, tmp_path, split):
    models = model_with(TEMPLATES["trimmed"])
    dataset = [row for row in chats(long=()) if row["split"] != "validation"]
    turns = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    answer = {"role": "assistant", "content": "BAD"}
    refused = chat(split, 40) | {"messages": json.dumps([*turns, answer])}
    job = make_job(
        tmp_path / "job", models, without_baseline(), [*dataset, refused], completions=ANSWERS
    )
    status, emitted = run_here(job)
    assert status != EXIT_DONE
    assert "training" not in {event.phase for event in of_type(emitted, "phase")}
    (failed,) = of_type(emitted, "failure")
    assert failed.reason == FailureReason.INVALID_DATA
    for part in (f"Row {split}-40 of the {split} split", "user and assistant must take turns"):
        assert part in failed.detail


def test_a_failure_after_training_does_not_lose_the_adapter(models_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise ProgramFailure(FailureReason.INVALID_DATA, "a row cannot be scored")

    monkeypatch.setattr("worker.programs.score_tuned.score_tuned", fail)
    job = make_job(tmp_path / "job", models_dir, without_baseline())
    status, emitted = run_here(job)
    assert status != EXIT_DONE
    assert of_type(emitted, "failure")[0].detail == "a row cannot be scored"
    stored = {event.file.path for event in of_type(emitted, "artifact")}
    assert stored == set(ADAPTER_FILES)
    assert PeftConfig.from_pretrained(str(job)).r == 4
