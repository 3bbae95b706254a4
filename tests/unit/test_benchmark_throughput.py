"""The benchmark's arithmetic: operations, ratios, medians, agreement, tables."""

from typing import Any

import pytest

from benchmarks.throughput import figures, table
from benchmarks.throughput.figures import Spread
from benchmarks.throughput.flops import (
    Shape,
    StepTokens,
    attended_pairs,
    needed_operations,
    shared_prefix,
    step_tokens,
)
from benchmarks.throughput.machine import short_name
from benchmarks.throughput.watch import status_bytes

SHAPE = Shape(
    matrices=((4, 4, 2), (4, 8, 1)), adapted=((4, 4, 1),), head=(4, 10), layers=1,
    attention_channels=4,
)  # fmt: skip


def test_the_prefix_is_what_all_rows_begin_with():
    assert shared_prefix([[1, 2, 3, 4], [1, 2, 9], [1, 2, 3, 7]]) == 2
    assert shared_prefix([[1, 2], [1, 2, 3]]) == 2
    assert shared_prefix([[5], [6]]) == 0


def test_a_steps_tokens():
    # Answers of two tokens and of one; the last token of a row predicts nothing.
    step = step_tokens([([1, 2, 3, 4, 5], 3), ([1, 2, 7, 8], 3)])
    assert step == StepTokens(prefix=2, suffixes=(2, 1), targets=3, real=9)
    assert step.needed == 5


def test_equal_rows_share_no_further_than_to_the_token_before_the_one_that_predicts():
    step = step_tokens([([1, 2, 3, 4], 3), ([1, 2, 3, 4], 3)])
    assert step.prefix == 2
    assert step.targets == 2


def test_attended_pairs_are_those_of_the_mask():
    step = StepTokens(prefix=3, suffixes=(2, 4), targets=2, real=12)
    # Owner 0 is the prefix, which everybody sees.
    places = [(0, index) for index in range(3)]
    places += [(owner, index) for owner, suffix in ((1, 2), (2, 4)) for index in range(suffix)]
    attended = sum(
        (key[0] == 0 and query[0] != 0) or (key[0] == query[0] and key[1] <= query[1])
        for query in places
        for key in places
    )
    assert attended_pairs(step) == attended


def test_needed_operations_by_hand():
    step = StepTokens(prefix=1, suffixes=(1,), targets=1, real=3)
    frozen = 4 * (2 * 16 + 32) * 2
    factors = 6 * (2 * (4 + 4)) * 2
    attention = 12 * 1 * 4 * 3
    logits = 4 * 4 * 10 * 1
    assert needed_operations(SHAPE, 2, step) == frozen + factors + attention + logits


def test_a_shared_prefix_is_counted_once():
    apart = needed_operations(SHAPE, 2, StepTokens(0, (8, 8), 2, 18))
    together = needed_operations(SHAPE, 2, StepTokens(4, (4, 4), 2, 18))
    assert together < apart


def test_ratios_are_taken_round_by_round():
    # The second round is half as fast for both: the ratio does not move.
    result = figures.ratio([[4, 4, 5], [2, 2, 2]], [[1, 1, 9], [0.5, 0.5, 0.5]])
    assert result == Spread(4, 4, 4)


def test_the_warm_up_is_not_timed():
    assert figures.speeds({"seconds": [100.0, 4.0, 2.0]}, 16, 1) == [4, 8]


def test_utilisation_is_operations_over_time_over_peak():
    step = StepTokens(0, (8,), 1, 9)
    operations = needed_operations(SHAPE, 2, step)
    results = [{"seconds": [9.0, 2.0, 4.0]}]
    result = figures.utilisation(results, [step] * 3, SHAPE, 2, operations, 1)
    assert result == Spread(0.375, 0.25, 0.5)


def test_agreement_of_curves():
    result = figures.agreement([[5.0, 4.0], [5.0, 4.2]], [[5.1, 4.1], [5.1, 4.3]])
    assert result["first_gap"] == pytest.approx(0.1)
    assert result["largest_gap"] == pytest.approx(0.1)
    assert result["seed_spread"] == pytest.approx(0.02**0.5)
    assert figures.agreement([[5.0]], [[5.0]])["seed_spread"] is None


def measured(seconds: float, peak: int, loss: float) -> dict[str, Any]:
    return {
        "seconds": [9 * seconds, seconds, seconds],
        "losses": [3.0, 2.5, loss],
        "host_peak": peak,
        "host_peak_training": peak - 1,
        "host_imports": 100,
        "device_peak": None,
        "startup_seconds": 5.0,
        "notes": ["said"],
    }


def row() -> dict[str, Any]:
    step = {"prefix": 1, "suffixes": [4, 4], "targets": 2, "real": 11}
    shape = {
        "matrices": [[4, 4, 2]],
        "adapted": [[4, 4, 1]],
        "head": [4, 10],
        "layers": 1,
        "attention_channels": 4,
    }
    work_fields = {"batch": 2, "micro": 1, "max_length": 8, "checkpointing": False, "rank": 2}
    rounds = {
        "original": [measured(8.0, 900, 3.0), measured(8.0, 900, 3.0)],
        "fairtune": [measured(2.0, 500, 2.0), measured(1.0, 700, 1.0)],
    }
    probes = [{"peak": 1e6, "steps": [step] * 3, "shape": shape}]
    return figures.row(("fairtune", "simple"), work_fields | {"options": {}}, rounds, probes, 1)


def test_a_row_holds_medians_over_the_rounds():
    line = row()
    assert line["samples_per_second"] == 1.5
    assert (line["samples_per_second_low"], line["samples_per_second_high"]) == (1, 2)
    assert line["ratio_to_original"] == 6
    assert "ratio_to_trl" not in line
    assert line["tokens_per_second"] == pytest.approx((11 + 5.5) / 2)
    assert line["peak_memory"] == 600
    assert line["peak_memory_above_imports"] == 500
    assert line["loss"] == 1.5
    assert line["steps"] == 3


def test_the_table_shows_the_row():
    result = {
        "date": "2026-01-02",
        "commit": "abc",
        "machine": "a machine",
        "model": "a model",
        "about": "so",
        "dtype": "float32",
        "versions": {"torch": "2"},
        "rows": [row()],
        "probes": {
            "simple": {"needed": 9, "real": 11, "prefix": 1, "peak": 4e11, "peak_cached": 3e11},
        },
        "agreement": {"simple": {"first_gap": 0.0, "largest_gap": 0.01, "seed_spread": None}},
    }
    text = table.throughput(result)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| simple, 8 | fairtune | 1.50 (1.00 to 2.00) | 6.00 (4.00 to 8.00) | - |" in text
    assert "float32 matrix products, 400 GFLOP/s" in text
    assert "abc" in text
    assert "said" in text


def test_names_of_machines_are_fit_for_files():
    cpu = "2 cores of Intel(R) Xeon(R) Processor with AMX, 24 GiB"
    assert short_name(cpu) == "2-cores-intel-xeon"
    assert short_name(f"{cpu}, NVIDIA H200") == "nvidia-h200"


def test_sizes_of_a_process():
    assert status_bytes("Name:\tx\nVmHWM:\t  12 kB\n", "VmHWM") == 12 * 1024
