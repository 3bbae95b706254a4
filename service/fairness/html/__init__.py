"""A bias report, or a comparison, as one self-contained HTML page.

The page loads nothing, runs nothing and says so in a policy of its own (`POLICY`). A server sends
`HEADER_POLICY` with it. Pure functions: the same page for the same report.
"""

from service.fairness.html.compare import render_compare
from service.fairness.html.page import HEADER_POLICY, POLICY
from service.fairness.html.report import render_report

__all__ = ["HEADER_POLICY", "POLICY", "render_compare", "render_report"]
