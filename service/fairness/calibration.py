"""Calibration: the bins of a reliability diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.fairness import rates
from service.fairness.metrics import CALIBRATION_BINS, calibration_bin, calibration_error
from service.fairness.schema import Calibration, Estimate
from service.fairness.schema_groups import CalibrationBin

if TYPE_CHECKING:
    from service.fairness.columns import Bools, Floats


def calibration(
    truth: Bools, scores: Floats, confidence: float, error: Estimate | None = None
) -> Calibration:
    """Return all bins of `metrics.calibration_error`, including empty ones, and the error.

    `error` is the calibration error if it has been computed already.
    """
    import numpy as np

    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bin_of_row = calibration_bin(scores)
    rows = np.bincount(bin_of_row, minlength=CALIBRATION_BINS)
    positives = np.bincount(bin_of_row[truth], minlength=CALIBRATION_BINS)
    sums = np.bincount(bin_of_row, weights=scores, minlength=CALIBRATION_BINS)
    return Calibration(
        error=error or calibration_error(truth, scores),
        bins=tuple(
            CalibrationBin(
                lower=float(edges[index]),
                upper=float(edges[index + 1]),
                rows=int(rows[index]),
                mean_score=float(sums[index] / rows[index]) if rows[index] else None,
                positives=rates.rate(
                    int(positives[index]), int(rows[index]), confidence, empty="the bin has no rows"
                ),
            )
            for index in range(CALIBRATION_BINS)
        ),
    )
