"""Bias reports that build_report computes from predictions."""

from dataclasses import fields
from typing import Any

from service.fairness import (
    BiasReport,
    Criteria,
    Predictions,
    ReportContext,
    ReportMeta,
    ScoredData,
    build_report,
)

META = ReportMeta(base_model="tiny", template="simple", split="test")


def build(tuned: Predictions, meta: ReportMeta = META, **inputs: Any) -> BiasReport:
    """Return a report; each keyword is a field of ScoredData, Criteria or ReportContext."""
    inputs = {"tuned": tuned, "positive_label": "hate"} | inputs
    data, required, context = (
        {field.name: inputs.pop(field.name) for field in fields(kind) if field.name in inputs}
        for kind in (ScoredData, Criteria, ReportContext)
    )
    assert not inputs, f"no such inputs: {inputs}"
    return build_report(ScoredData(**data), Criteria(**required), meta, ReportContext(**context))
