"""Whether scores are probabilities: what a reliability diagram is drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.fairness import rates
from service.fairness.metrics import CALIBRATION_BINS, calibration_bin, calibration_error
from service.fairness.schema import Calibration, Estimate
from service.fairness.schema_detail import CalibrationBin

if TYPE_CHECKING:
    from service.fairness.columns import Bools, Floats


def calibration(
    truth: Bools, scores: Floats, confidence: float, error: Estimate | None = None
) -> Calibration:
    """The bins of `metrics.calibration_error`, empty ones included, and that error.

    `error` is it where it is known already.
    """
    import numpy as np

    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    places = calibration_bin(scores)
    rows = np.bincount(places, minlength=CALIBRATION_BINS)
    positives = np.bincount(places[truth], minlength=CALIBRATION_BINS)
    sums = np.bincount(places, weights=scores, minlength=CALIBRATION_BINS)
    return Calibration(
        error=error or calibration_error(truth, scores),
        bins=tuple(
            CalibrationBin(
                lower=float(edges[place]),
                upper=float(edges[place + 1]),
                rows=int(rows[place]),
                mean_score=float(sums[place] / rows[place]) if rows[place] else None,
                positives=rates.rate(
                    int(positives[place]), int(rows[place]), confidence, empty="no rows in the bin"
                ),
            )
            for place in range(CALIBRATION_BINS)
        ),
    )
