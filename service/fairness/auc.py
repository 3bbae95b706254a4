"""ROC AUC of groups against the background (Borkan et al. 2019, arXiv:1903.04561)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.fairness.columns import Partition
from service.fairness.schema import Estimate
from service.fairness.schema_base import NO_INTERVAL_COMPUTED
from service.fairness.schema_groups import GroupAuc

if TYPE_CHECKING:
    from service.fairness.columns import Bools, Floats


def group_aucs(truth: Bools, scores: Floats, groups: Partition) -> dict[str, GroupAuc]:
    """Return the subgroup, BPSN and BNSP AUC of each group.

    BPSN: background positives versus subgroup negatives. BNSP: background negatives versus
    subgroup positives. The background of a group is all rows that are not in it.

    A group's pairs with the background are its pairs with all rows less the pairs within the group.
    Both use one sorted copy of all scores, so many groups cost little more than one; scikit-learn
    would sort the background again for each. The counts of pairs are integers, hence exact.
    """
    import numpy as np

    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    areas = {}
    for name, rows in groups.rows.items():
        own = truth[rows]
        hateful, harmless = np.sort(scores[rows][own]), np.sort(scores[rows][~own])
        within = _wins(hateful, harmless)
        in_group = {"positive": len(hateful), "negative": len(harmless)}
        in_background = {
            "positive": len(positives) - len(hateful),
            "negative": len(negatives) - len(harmless),
        }
        areas[name] = GroupAuc(
            subgroup=_share(within, ("group", in_group), ("group", in_group)),
            bpsn=_share(
                _wins(positives, harmless) - within,
                ("background", in_background),
                ("group", in_group),
            ),
            bnsp=_share(
                _wins(hateful, negatives) - within,
                ("group", in_group),
                ("background", in_background),
            ),
        )
    return areas


def _wins(above: Floats, below: Floats) -> int:
    """Return twice the number of pairs with the first score higher; a tie counts 1. Both sorted."""
    import numpy as np

    if len(above) > len(below):  # search the longer array for the values of the shorter
        return 2 * len(above) * len(below) - _wins(below, above)
    lower = np.searchsorted(below, above, side="left")
    no_higher = np.searchsorted(below, above, side="right")
    return int(lower.sum() + no_higher.sum())


def _share(
    wins: int, above: tuple[str, dict[str, int]], below: tuple[str, dict[str, int]]
) -> Estimate:
    """Return wins / 2 as a share of the pairs of positives of `above` and negatives of `below`."""
    positives, negatives = above[1]["positive"], below[1]["negative"]
    if not positives:
        return Estimate(value=None, reason=f"the {above[0]} has no positive rows")
    if not negatives:
        return Estimate(value=None, reason=f"the {below[0]} has no negative rows")
    area = wins / (2 * positives * negatives)
    return Estimate(value=area, interval_reason=NO_INTERVAL_COMPUTED)
