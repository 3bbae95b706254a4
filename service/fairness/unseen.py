"""Verdicts on the evaluated rows whose text influenced the model in no way."""

from __future__ import annotations

from service.fairness import criteria, metrics, rates, verdicts
from service.fairness.columns import Split
from service.fairness.criteria import Criteria
from service.fairness.report_inputs import ScoredData
from service.fairness.rules import Decision
from service.fairness.schema_verdicts import GroupRates, UnseenRows


def unseen_rows(
    data: ScoredData, split: Split, decision: Decision, required: Criteria
) -> UnseenRows | None:
    """Return the verdicts without the rows in `data.seen`; None if there are none such."""
    import numpy as np

    if data.seen is None:
        return None
    seen = data.seen.in_training | data.seen.in_validation
    unseen = np.array([row_id not in seen for row_id in data.tuned.ids])
    if unseen.all():
        return None
    truth, called = split.truth[unseen], decision.predictions.called[unseen]
    groups = []
    for name, members in split.groups.rows.items():
        of_group = members[unseen[members]]
        counts = rates.confusion(split.truth[of_group], decision.predictions.called[of_group])
        fpr, fnr = rates.fpr(counts, split.confidence), rates.fnr(counts, split.confidence)
        groups.append(GroupRates(group=name, fpr=fpr, fnr=fnr))
    f1 = metrics.f1(truth, called)
    caps = criteria.judge_caps(required.caps, groups, data.all_groups(), split.confidence)
    return UnseenRows(
        rows=int(unseen.sum()),
        f1=f1,
        caps=caps,
        caps_verdict=verdicts.summarise(caps),
        min_f1=criteria.min_f1(required.min_f1, f1),
    )
