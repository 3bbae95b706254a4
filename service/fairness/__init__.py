"""Predictions in, bias report out: pure functions that read no file, clock or database."""

from service.fairness.baselines import LabelCounts, label_counts
from service.fairness.predictions import Predictions
from service.fairness.report import build_report
from service.fairness.schema import BiasReport, ReportMeta
from service.fairness.text import render_text

__all__ = [
    "BiasReport",
    "LabelCounts",
    "Predictions",
    "ReportMeta",
    "build_report",
    "label_counts",
    "render_text",
]
