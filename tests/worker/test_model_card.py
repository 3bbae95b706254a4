"""The model card as the Hub reads it, and what a user's words can do to it."""

import ast
import re

import pytest
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from service.domain.base_models import BUNDLED_MODEL
from service.domain.job import Job
from service.fairness import Criteria, Predictions, ReportMeta, ScoredData, build_report
from service.usecases import export
from tests.support.train_jobs import TEMPLATE, spec
from worker.training.loading_snippet import loading_snippet
from worker.training.model_card import model_card

EVIL = "a/b, c 🙂\n---\n<script>alert(1)</script>|`x`[y](javascript:z) # *b*: {1}"
"""Two lines, the second of which would end the metadata."""


def predictions(split="test", wrong=1):
    """12 rows of EVIL and 8 of b, half of them hate; so many of EVIL's negatives are got wrong."""
    rows = (
        [(EVIL, "hate")] * 6 + [(EVIL, "normal")] * 6 + [("b", "hate")] * 4 + [("b", "normal")] * 4
    )
    scores = [0.9] * 6 + [0.7] * wrong + [0.1] * (6 - wrong) + [0.8] * 4 + [0.2] * 4
    return Predictions(
        ids=[f"{split}-{number}" for number in range(len(rows))],
        labels=[label for _, label in rows],
        groups=[group for group, _ in rows],
        sources=[None] * len(rows),
        details=[None] * len(rows),
        predictions=["hate" if score >= 0.5 else "normal" for score in scores],
        scores=scores,
        label_scores={"hate": scores, "normal": [1 - score for score in scores]},
        split=split,
        checkpoint_step=6,
    )


def card(rule="argmax", name="my run", caps=None, report=True, dataset_name=None, **more):
    caps = [{"group": EVIL, "metric": "fpr", "max": 0.05}] if caps is None else caps
    run_spec = spec(
        name=name,
        fairness={"caps": caps, "min_f1": 0.6},
        evaluation={"threshold": rule},
    )
    job = Job(
        job_id="job_1",
        run_id="run_1",
        token=1,
        spec=run_spec,
        template=TEMPLATE,
        baseline_template=None,
        models_dir="/models",
        dataset_name=dataset_name,
    )
    meta = ReportMeta(
        run_id="run_1",
        base_model="tiny-llama",
        template="tiny",
        dataset_id="ds_1",
        split="test",
        checkpoint_step=6,
        threshold=rule,
    )
    report_of_run = build_report(
        ScoredData(tuned=predictions(), validation=predictions("validation", wrong=0)),
        Criteria(positive_label="hate", caps=run_spec.fairness.caps, min_f1=0.6, min_support=10),
        meta,
    )
    counts = {"train": 24, "test": 20}
    text = model_card(
        job,
        counts,
        ["hate", "normal"],
        12,
        6,
        4096,
        {"eval_loss": 0.25, f"eval_fpr/{EVIL}": 0.5},
        report_of_run if report else None,
    )
    return text, report_of_run


def loaded(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text, "utf-8")
    return ModelCard.load(path)


def test_the_hub_reads_the_figures(tmp_path):
    text, report = card(name=EVIL)
    parsed = loaded(tmp_path, text)
    assert parsed.data.model_name == " ".join(EVIL.split())
    assert (parsed.data.base_model, parsed.data.library_name) == ("tiny-llama", "peft")
    assert parsed.data.tags == ["lora", "fairtune"]
    by_name = {}
    for result in parsed.data.eval_results:
        assert (result.task_type, result.dataset_type) == ("text-classification", "ds_1")
        assert (result.dataset_name, result.dataset_split) == ("ds_1", "test")
        group = (result.metric_args or {}).get("group")
        by_name[result.metric_type, group] = result.metric_value
    overall = report.overall.tuned
    # One negative of EVIL's 6 is called hate, of 10 in all: F1 20/21.
    assert by_name == pytest.approx(
        {
            ("f1", None): 20 / 21,
            ("accuracy", None): 19 / 20,
            ("roc_auc", None): overall.auc.value,
            ("false_positive_rate", EVIL): 1 / 6,
            ("false_negative_rate", EVIL): 0.0,
            ("false_positive_rate", "b"): 0.0,
            ("false_negative_rate", "b"): 0.0,
        }
    )
    # The card that the library writes again is the same one.
    assert str(parsed) == text


def test_a_users_words_do_nothing(tmp_path):
    text, _ = card(name=EVIL)
    parsed = loaded(tmp_path, text)
    assert (
        parsed.text.count("a/b, c 🙂 --- _script_alert(1)_/script___x__y_(javascript:z) _ _b_") >= 3
    )
    for sign in ("<script", "`x`", "[y]"):
        assert sign not in parsed.text
    assert not [line for line in parsed.text.splitlines() if line.strip() == "---"]
    rows = [line for line in parsed.text.splitlines() if line.startswith("| a/b")]
    assert [row.count("|") for row in rows] == [7, 6]  # by group, caps


def test_intervals_verdicts_and_warnings_are_in_the_text(tmp_path):
    text, report = card()
    (verdict,) = report.caps
    assert (
        f"`{verdict.verdict}` | 0.167 (1 of 6) | {verdict.lower:.3f}, {verdict.upper:.3f}" in text
    )
    accuracy = report.overall.tuned.accuracy
    assert f"| accuracy | 0.950 | {accuracy.lower:.3f} to {accuracy.upper:.3f} |" in text
    assert "F1 of at least 0.6: met." in text
    assert f"All caps: `{report.caps_verdict}`." in text
    assert report.warnings  # b has fewer rows than min_support
    for warning in report.warnings:
        if EVIL not in warning.detail:
            assert f"- {warning.detail}" in text


@pytest.mark.parametrize("rule", ["argmax", "fitted"])
def test_it_says_which_threshold_to_use(rule):
    text, report = card(rule)
    (fitted,) = [rule_report for rule_report in report.thresholds if rule_report.rule == "fitted"]
    if rule == "argmax":
        assert "most probable label of a row (argmax)" in text
    else:
        assert f"is at least {fitted.threshold!r}" in text
    assert f"| fitted | {fitted.threshold:.6g} |" in text
    assert "on 20 rows of the validation split (it satisfies every limit)" in text


def test_without_a_report_there_is_no_index(tmp_path):
    text, _ = card(report=False)
    parsed = loaded(tmp_path, text)
    assert parsed.data.eval_results is None
    assert parsed.data.model_name == "my run"
    assert "| eval_loss | 0.2500 |" in text
    assert "<script" not in text


def snippet(text):
    return text.partition("```python\n")[2].partition("```")[0]


def test_the_dataset_is_named(tmp_path):
    text, _ = card(dataset_name=EVIL)
    parsed = loaded(tmp_path, text)
    assert {result.dataset_name for result in parsed.data.eval_results} == {" ".join(EVIL.split())}
    assert {result.dataset_type for result in parsed.data.eval_results} == {"ds_1"}
    assert "(`ds_1`)." in parsed.text
    assert "<script" not in parsed.text
    assert "Dataset: `ds_1`." in card()[0]


def test_the_files_that_it_names_are_exported():
    text, _ = card()
    named = set(re.findall(r"`([^`/ ]+\.(?:html|json|csv|parquet|log|safetensors))`", text))
    assert named == {"bias_report.json"}
    assert not any(name.endswith(export.EXCLUDED) for name in named)


@pytest.mark.parametrize("base_model", [BUNDLED_MODEL, "tiny-llama", "openai/gpt-oss-20b"])
def test_its_code_is_python_and_names_no_made_up_path(base_model):
    code = loading_snippet(base_model)
    ast.parse(code)
    assert "this directory" not in code
    if base_model == BUNDLED_MODEL:
        assert f'"{BUNDLED_MODEL}"' not in code  # no directory and no model of the Hub
        assert "GgufConfig(dequantize=True)" in code
    else:
        assert f'base = "{base_model}"' in code
    assert ("models directory" in code) == (base_model == "tiny-llama")
    assert snippet(card()[0]) == loading_snippet("tiny-llama")


def test_its_code_loads_the_adapter_of_a_local_base_model(models_dir, tmp_path, monkeypatch):
    """As a reader would, with the path of the base model set."""
    directory = models_dir / "tiny-llama"
    model = AutoModelForCausalLM.from_pretrained(directory)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    code = loading_snippet("tiny-llama").replace('"tiny-llama"', repr(str(directory)))
    exec(code, names)
    assert isinstance(names["model"], PeftModel)
    assert names["tokenizer"]("a").input_ids
