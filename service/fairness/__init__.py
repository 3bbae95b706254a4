"""Bias reports from predictions: pure functions that read no file, clock or database."""

from service.fairness.baselines import LabelCounts, label_counts
from service.fairness.criteria import Criteria
from service.fairness.predictions import Predictions
from service.fairness.report import build_report
from service.fairness.report_inputs import ReportContext, ScoredData
from service.fairness.schema import BiasReport, ReportMeta
from service.fairness.text import render_text

__all__ = [
    "BiasReport",
    "Criteria",
    "LabelCounts",
    "Predictions",
    "ReportContext",
    "ReportMeta",
    "ScoredData",
    "build_report",
    "label_counts",
    "render_text",
]
