"""Bias reports."""

import json
from typing import TYPE_CHECKING, Self

from fairtune import _display as display
from fairtune.models import BiasReport

if TYPE_CHECKING:
    import pandas


class Report(BiasReport):
    """A bias report: error rates by group with confidence intervals, verdicts on caps."""

    page: str | None
    """The report as an HTML page, if it was read for a notebook."""

    @classmethod
    def from_answer(cls, content: str, page: str | None) -> Self:
        """Read a report from its JSON."""
        report = cls.from_json(json.loads(content))
        report.page = page
        return report

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a frame with a row for each group. Needs pandas."""
        import pandas as pd

        rows = [
            {
                "group": group.group,
                "n": group.n,
                "positives": group.positives,
                "negatives": group.negatives,
                **{
                    f"{rate}{suffix}": getattr(getattr(group.tuned, rate), member)
                    for rate in ("fpr", "fnr", "accuracy")
                    for suffix, member in (("", "value"), ("_lower", "lower"), ("_upper", "upper"))
                },
            }
            for group in self.groups
        ]
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return display.report_tables(self) if self.page is None else display.framed(self.page)
