"""Bias report or comparison as one self-contained HTML page.

The page loads nothing and runs nothing, as its Content-Security-Policy (`POLICY`) states. A server
sends `HEADER_POLICY` with it. Pure functions: the same report gives the same page.
"""

from service.fairness.html.compare import render_compare
from service.fairness.html.page import HEADER_POLICY, POLICY
from service.fairness.html.report import render_report

__all__ = ["HEADER_POLICY", "POLICY", "render_compare", "render_report"]
