"""Rows made up for the fairness tests."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from service.fairness import Predictions


def _predictions(
    labels: Sequence[str],
    predictions: Sequence[str],
    groups: Sequence[str | None] | None = None,
    scores: Sequence[float] | None = None,
    **more: Any,
) -> Predictions:
    n = len(labels)
    columns: dict[str, Any] = {
        "ids": [f"r{row}" for row in range(n)],
        "labels": labels,
        "groups": [None] * n if groups is None else groups,
        "sources": [None] * n,
        "details": [None] * n,
        "predictions": predictions,
        "scores": [0.5] * n if scores is None else scores,
    }
    return Predictions(**(columns | more))


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., Predictions]:
    """Builds predictions from labels and predicted labels; everything else has a default."""
    return _predictions


@pytest.fixture(scope="module")
def quick_collection() -> Iterator[None]:
    """Keeps what the process already holds out of the garbage collector's sight.

    statsmodels' multipletests collects garbage at every call, which takes the longer the more
    objects there are (0.4 s with three million lists), and hypothesis calls it again and again.
    """
    gc.freeze()
    yield
    gc.unfreeze()
