"""benchmarks.unified, by which docs/results.md was made: from the unified files to a report."""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from service.fairness.schema import BiasReport
from tests.support.tiny_runs import TINY

ROOT = Path(__file__).parents[2]
FILES = {"train": ("train", 48), "val": ("validation", 20), "test": ("test", 30)}


@pytest.fixture
def unified(tmp_path) -> Path:
    """The bundled sample in the form of the unified files, one row of them without a text."""
    sample = resources.files("service.datasets.sample")
    for name, (split, count) in FILES.items():
        lines = (sample / f"{split}.jsonl").read_text("utf-8").splitlines()[:count]
        rows = [
            {
                "text": row["text"],
                "label_binary": row["label"],
                "label_multiclass": "hatespeech" if row["label"] == "hate" else "normal",
                "target_group_norm": row["group"],
                "source_dataset": "sample",
                "original_id": row["id"],
                "split": "train",  # whatever file it stands in, as in the real ones
            }
            for row in map(json.loads, lines)
        ]
        rows.append(rows[0] | {"text": " "})
        (tmp_path / f"unified_{name}.json").write_text(json.dumps(rows), "utf-8")
    return tmp_path


@pytest.mark.extended
@pytest.mark.parametrize("service", ["files"], indirect=True)
def test_the_report_of_a_run_on_the_unified_files_is_saved_in_all_its_forms(service, unified):
    saved = unified / "saved"
    spec = TINY | {"fairness": {"select": "best_f1_within_caps"}}
    command = [sys.executable, "-m", "benchmarks.unified", str(unified), "--save", str(saved)]
    command += ["--url", str(service.client.base_url), "--spec", json.dumps(spec)]
    command += ["--train-rows", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "{'train': 40, 'validation': 20, 'test': 30}" in done.stdout
    assert "False-positive rate" in done.stdout
    stored = (saved / "bias_report.json").read_bytes()
    report = BiasReport.model_validate_json(stored)
    assert (report.meta.split, report.data.rows) == ("test", 30)
    assert [cap.group for cap in report.caps] == ["lgbtq", "mexican", "middle_east"]
    assert service.client.get(f"/v1/runs/{report.meta.run_id}/bias-report").content == stored
    for name in ("bias_metrics.csv", "performance_metrics.csv"):
        assert (saved / name).read_bytes().startswith(b"strategy,")
    page = (saved / "bias_report.html").read_text("utf-8")
    assert "<h1>Bias report</h1>" in page
    texts = [row["text"] for row in json.loads((unified / "unified_test.json").read_text("utf-8"))]
    assert not any(text in page for text in texts if text.strip())
