"""The evaluation benchmark's arithmetic: which rows, ratios, agreement, the table."""

from typing import Any

import pytest

from benchmarks.evaluation import table
from benchmarks.evaluation.work import Work, at_equal_distances

HELD = {"host_peak": 3 * table.GIB, "host_imports": table.GIB}
SCORED: dict[str, Any] = HELD | {
    "sample_rows": 4,
    "sample_seconds": 1.0,
    "rows": 40,
    "seconds": 5.0,
    "labels": ["hate", "hate", "normal", "normal"],
    "apart": 2e-7,
    "prompt_tokens": 64.0,
    "notes": [],
}
GENERATED: dict[str, Any] = HELD | {
    "rows": 4,
    "seconds": 8.0,
    "labels": ["hate", None, "hate", "normal"],
    "batch": 16,
    "tried": {"8": 0.4, "16": 0.5},
    "written_tokens": 12.5,
    "examples": ["No."],
}


@pytest.mark.parametrize(
    ("there", "count", "taken"), [(10, 5, [0, 2, 4, 6, 8]), (3, 9, [0, 1, 2]), (7, 3, [0, 2, 4])]
)
def test_rows_at_equal_distances(there, count, taken):
    assert at_equal_distances(range(there), count) == taken


def test_a_specification_is_laid_over_the_run_s_defaults():
    work = Work(
        "generate", "m", "dir", "rows", "hate_speech_policy", 1024, 8, {"training": {"bf16": False}}
    )
    spec = work.run_spec()
    assert not spec.training.bf16
    assert spec.training.max_seq_length == 1024
    assert spec.quantization.load_in_4bit


def test_ratios_are_of_rows_a_second_and_agreement_of_answers_in_the_format():
    wrote, alone, whole = table.rows("simple", SCORED, GENERATED)
    assert [row["rows_per_second"] for row in (wrote, alone, whole)] == [0.5, 4, 8]
    assert [row["ratio_to_generating"] for row in (wrote, alone, whole)] == [1, 8, 16]
    assert (wrote["inside"], wrote["same_label"], wrote["outside"]) == (3, 2, 0.25)
    assert whole["peak_memory_above_imports"] == 2 * table.GIB


def test_the_table_says_what_each_row_is_of():
    stamp = {
        "date": "2026-01-01",
        "machine": "2 cores",
        "commit": "c",
        "model": "m",
        "about": "about",
        "versions": {"torch": "2"},
    }
    text = table.text(stamp | {"rows": table.rows("simple", SCORED, GENERATED)})
    assert "| simple | generate, batches of 16 | 4 | 0.50 | 1.00 |" in text
    assert "| simple | fairtune, all rows | 40 | 8.00 | 16.00 |" in text
    assert "2 of 3" in text
    assert "8: 0.40, 16: 0.50" in text
    assert "2e-07" in text
