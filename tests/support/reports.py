"""Bias reports and comparisons made up for the pages that show them: plausible, and extreme.

Built part by part from random rows, not by build_report: a page must show whatever the form allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.fairness import rates, verdicts
from service.fairness.schema import (
    Baselines,
    BiasReport,
    Differences,
    MinF1,
    Overall,
    ReportData,
    ReportMeta,
    ReportSettings,
    ReportWarning,
    Shown,
)
from service.fairness.schema_base import Estimate, OverallMetrics
from service.fairness.schema_compare import (
    Compared,
    ComparedCap,
    Comparison,
    ComparisonData,
    Pair,
    WorstExcess,
)
from service.fairness.schema_curves import (
    Curves,
    FormatSample,
    Mistake,
    RocCurve,
    ScoreHistogram,
    Sweep,
)
from service.fairness.schema_groups import (
    Calibration,
    CalibrationBin,
    FunctionalCell,
    Functionality,
    GroupAuc,
    GroupMetrics,
    GroupReport,
    Parity,
    ParityDifference,
    ParityReport,
    Stratum,
)
from service.fairness.schema_verdicts import (
    AtThreshold,
    BeforeAfter,
    GroupPaired,
    GroupRates,
    Paired,
    Success,
    ThresholdFit,
)

GROUPS = ("lgbtq", "mexican", "middle_east")
LEVEL = 0.95
FIGURES = ("accuracy", "precision", "recall", "fpr", "fnr", "f1", "auc", "calibration_error")


@dataclass(frozen=True)
class CapLimit:
    """A cap."""

    group: str
    metric: Any
    max: float


CAPS = (
    CapLimit("lgbtq", "fpr", 0.40),
    CapLimit("mexican", "fpr", 0.10),
    CapLimit("middle_east", "fpr", 0.25),
)


@dataclass
class Rows:
    """Random rows: truth, scores of the tuned and the base model, and group, by number."""

    truth: Any
    score: Any
    before: Any
    group: Any
    names: Sequence[str]

    def of(self, group: int | None) -> Any:
        return np.ones(len(self.truth), bool) if group is None else self.group == group


def rows(names: Sequence[str] = GROUPS, n: int = 1009, seed: int = 3) -> Rows:
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.45
    group = random.integers(0, max(1, len(names)), n)
    lean = np.linspace(-0.5, 0.9, max(1, len(names)))[group]
    score = 1 / (1 + np.exp(-(random.normal(0, 1.3, n) + 2.1 * truth - 1.2 + lean * ~truth)))
    before = 1 / (1 + np.exp(-(random.normal(0, 0.5, n) + 0.3 * truth + 0.4)))
    return Rows(truth, score, before, group, names)


def estimate(value: float | None, half: float | None = None, reason: str | None = None) -> Estimate:
    if value is None:
        return Estimate(value=None, reason=reason or "not enough rows")
    ends = {} if half is None else {"lower": value - half, "upper": value + half}
    return Estimate(value=value, **ends)


def auc(truth: Any, score: Any) -> Estimate:
    up, down = score[truth], score[~truth]
    if not len(up) or not len(down):
        return estimate(None, reason="all rows are of one class")
    return estimate(float((up[:, None] > down[None, :]).mean()), 0.021)


def overall(truth: Any, called: Any, score: Any) -> OverallMetrics:
    counts = rates.confusion(truth, called)
    right = 2 * counts.true_positive
    total = right + counts.false_positive + counts.false_negative
    unscored = estimate(None, reason="a rule without scores")
    return OverallMetrics(
        confusion=counts,
        accuracy=rates.accuracy(counts, LEVEL),
        precision=rates.precision(counts, LEVEL),
        recall=rates.recall(counts, LEVEL),
        fpr=rates.fpr(counts, LEVEL),
        fnr=rates.fnr(counts, LEVEL),
        f1=estimate(right / total if total else None, 0.034, "nothing is or was called positive"),
        auc=unscored if score is None else auc(truth, score),
        calibration_error=unscored if score is None else calibration(truth, score).error,
    )


def group_metrics(truth: Any, called: Any) -> GroupMetrics:
    counts = rates.confusion(truth, called)
    return GroupMetrics(
        confusion=counts,
        fpr=rates.fpr(counts, LEVEL),
        fnr=rates.fnr(counts, LEVEL),
        accuracy=rates.accuracy(counts, LEVEL),
    )


def calibration(truth: Any, score: Any) -> Calibration:
    bins, error = [], 0.0
    for n in range(15):
        lower, upper = n / 15, (n + 1) / 15
        inside = (score > lower) & (score <= upper)
        among = int(inside.sum())
        mean = float(score[inside].mean()) if among else None
        share = rates.rate(int(truth[inside].sum()), among, LEVEL, empty="no rows in this bin")
        if mean is not None:
            error += among / len(truth) * abs(mean - (share.value or 0))
        bins.append(
            CalibrationBin(lower=lower, upper=upper, rows=among, mean_score=mean, positives=share)
        )
    return Calibration(error=estimate(error), bins=tuple(bins))


def paired(truth: Any, before: Any, after: Any, holm: float | None = None) -> Paired:
    from scipy.stats import binomtest

    one, two = before == truth, after == truth
    alone = int((one & ~two).sum()), int((~one & two).sum())
    p = float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
    return Paired(
        rows=len(truth),
        both_right=int((one & two).sum()),
        both_wrong=int((~one & ~two).sum()),
        only_first=alone[0],
        only_second=alone[1],
        p_value=p,
        p_holm=None if holm is None else min(1.0, p * holm),
    )


def parity(made: Rows, called: Any) -> Parity:
    def apart(mask: Any) -> ParityDifference:
        share = {
            name: float(called[mask & made.of(n)].mean())
            for n, name in enumerate(made.names)
            if (mask & made.of(n)).any()
        }
        high, low = max(share, key=share.__getitem__), min(share, key=share.__getitem__)
        value = share[high] - share[low]
        return ParityDifference(
            value=value, lower=max(0, value - 0.06), upper=value + 0.07, highest=high, lowest=low
        )

    everything = made.of(None)
    fpr, tpr = apart(~made.truth), apart(made.truth)
    return Parity(
        demographic_parity=apart(everything),
        false_positive_rate=fpr,
        true_positive_rate=tpr,
        equalized_odds=max(fpr, tpr, key=lambda one: one.value or 0),
        left_out={},
    )


def curves(made: Rows) -> Curves:
    grid = np.linspace(0, 1, 51)
    parts = [(None, made.of(None))] + [(n, made.of(n)) for n in range(len(made.names))]
    parts = [(n, mask) for n, mask in parts if mask.any()]

    def name(n: int | None) -> str | None:
        return None if n is None else made.names[n]

    def roc(n: int | None, mask: Any) -> RocCurve:
        truth, score = made.truth[mask], made.score[mask]
        cuts = np.linspace(1.0001, 0, 60)
        return RocCurve(
            group=name(n),
            fpr=tuple(float((score[~truth] >= cut).mean()) for cut in cuts),
            tpr=tuple(float((score[truth] >= cut).mean()) for cut in cuts),
        )

    def swept(figure: str, mask: Any) -> tuple[float | None, ...]:
        truth, score = made.truth[mask], made.score[mask]
        values = []
        for cut in grid:
            called = score >= cut
            right = int((called & truth).sum())
            share, among = {
                "f1": (2 * right, called.sum() + truth.sum()),
                "precision": (right, called.sum()),
                "recall": (right, truth.sum()),
                "fpr": ((called & ~truth).sum(), (~truth).sum()),
                "fnr": ((~called & truth).sum(), truth.sum()),
            }[figure]
            values.append(float(share / among) if among else None)
        return tuple(values)

    def bins(n: int | None, mask: Any) -> ScoreHistogram:
        truth, score = made.truth[mask], made.score[mask]
        up, down = (np.histogram(score[which], 20, (0, 1))[0] for which in (truth, ~truth))
        return ScoreHistogram(
            group=name(n), positives=tuple(map(int, up)), negatives=tuple(map(int, down))
        )

    return Curves(
        roc=tuple(roc(n, mask) for n, mask in parts if len(set(made.truth[mask])) == 2),
        histograms=tuple(bins(n, mask) for n, mask in parts),
        calibration=calibration(made.truth, made.score),
        sweep=Sweep(
            thresholds=tuple(map(float, grid)),
            f1=swept("f1", made.of(None)),
            precision=swept("precision", made.of(None)),
            recall=swept("recall", made.of(None)),
            fpr={made.names[n]: swept("fpr", mask) for n, mask in parts if n is not None},
            fnr={made.names[n]: swept("fnr", mask) for n, mask in parts if n is not None},
        ),
    )


def judged(called: Any, made: Rows, caps: Sequence[CapLimit]) -> Any:
    observed = {
        name: group_metrics(made.truth[made.of(n)], called[made.of(n)])
        for n, name in enumerate(made.names)
        if made.of(n).any()
    }
    return tuple(
        verdicts.judge_cap(
            cap,
            getattr(observed[cap.group], cap.metric) if cap.group in observed else None,
            LEVEL,
        )
        for cap in caps
    )


def at(rule: Any, threshold: float | None, called: Any, made: Rows, caps: Any, least: Any) -> Any:
    given = judged(called, made, caps)
    whole = overall(made.truth, called, made.score)
    return AtThreshold(
        rule=rule,
        threshold=threshold,
        fit=ThresholdFit(split="validation", rows=505, f1=0.671, feasible=False, violation=0.031)
        if rule == "fitted"
        else None,
        overall=whole,
        groups=tuple(
            GroupRates(
                group=name,
                fpr=rates.fpr(rates.confusion(made.truth[mask], called[mask]), LEVEL),
                fnr=rates.fnr(rates.confusion(made.truth[mask], called[mask]), LEVEL),
            )
            for n, name in enumerate(made.names)
            if (mask := made.of(n)).any()
        ),
        caps=given,
        caps_verdict=verdicts.summarise(given),
        min_f1=least,
    )


def stratum(name: str, truth: Any, called: Any, before: Any) -> Stratum:
    return Stratum(
        name=name,
        n=len(truth),
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        small_sample=len(truth) < 30,
        tuned=group_metrics(truth, called),
        base=None if before is None else group_metrics(truth, before),
    )


def functionality(name: str, made: Rows, mask: Any, called: Any, before: Any) -> Functionality:
    def right(which: Any, by: Any) -> Any:
        return rates.rate(
            int((by == made.truth)[which].sum()), int(which.sum()), LEVEL, empty="no rows"
        )

    kinds = set(made.truth[mask])
    return Functionality(
        name=name,
        n=int(mask.sum()),
        label=None if len(kinds) > 1 else "hate" if kinds == {True} else "normal",
        tuned=right(mask, called),
        base=None if before is None else right(mask, before),
        by_group=tuple(
            FunctionalCell(group=group, n=int(both.sum()), accuracy=right(both, called))
            for n, group in enumerate(made.names)
            if (both := mask & made.of(n)).any()
        ),
    )


DETAILS = (
    "derogation",
    "slur_reclaimed",
    "counter_quote",
    "negated_hate",
    "threat_direct",
    "identity_neutral",
)


def report(
    names: Sequence[str] = GROUPS,
    *,
    n: int = 1009,
    seed: int = 3,
    base: bool = True,
    scores: bool = True,
    caps: Sequence[CapLimit] = CAPS,
    details: Sequence[str] = DETAILS,
    **changes: Any,
) -> BiasReport:
    """A whole report about random rows; `changes` replace its parts."""
    made = rows(names, n, seed)
    truth, called = made.truth, made.score >= 0.5
    before = made.before >= 0.5 if base else None
    tuned = overall(truth, called, made.score)
    earlier = None if before is None else overall(truth, before, made.before)
    fit = 0.63
    groups = tuple(
        GroupReport(
            group=name,
            n=int(mask.sum()),
            positives=int(truth[mask].sum()),
            negatives=int((~truth[mask]).sum()),
            small_sample=int(mask.sum()) < 30,
            tuned=group_metrics(truth[mask], called[mask]),
            base=None if before is None else group_metrics(truth[mask], before[mask]),
            auc=GroupAuc(
                subgroup=auc(truth[mask], made.score[mask]),
                bpsn=estimate(0.781, 0.03),
                bnsp=estimate(0.802, 0.028),
            ),
            calibration=calibration(truth[mask], made.score[mask]),
        )
        for number, name in enumerate(names)
        if (mask := made.of(number)).any()
    )
    least = MinF1(min_f1=0.615, value=tuned.f1.value, verdict="met")
    given = judged(called, made, caps)
    detail = np.arange(n) * 7 % max(1, len(details))
    wrong = np.flatnonzero(called != truth)
    surest = wrong[np.argsort(-abs(made.score[wrong] - 0.5))][:30]
    built = BiasReport(
        meta=ReportMeta(
            run_id="run_01m831s9e232ax31xvq0kdk0st",
            base_model="smollm2-135m-instruct",
            template="hate_speech_simple",
            base_template="hate_speech_policy" if base else None,
            dataset_id="ds_01m831s8xqpe5wq0f3x1c0m6ye",
            split="test",
            checkpoint_step=454,
        ),
        shown=Shown(
            system="You are a content moderator.",
            user='Decide whether the text is hate speech. Answer {"classification": …}\n\n$text',
            completion='{"classification": "$label"}',
            group=False,
            truncated=3,
        ),
        settings=ReportSettings(positive_label="hate", confidence=LEVEL, min_support=30),
        data=ReportData(
            rows=n,
            positives=int(truth.sum()),
            negatives=int((~truth).sum()),
            without_group=0,
            labels={"hate": int(truth.sum()), "normal": int((~truth).sum())},
        ),
        success=Success(
            tuned_template="hate_speech_simple",
            base_template="hate_speech_policy" if base else None,
            tuned_f1=tuned.f1.value,
            base_f1=earlier.f1.value if earlier else None,
            difference=(tuned.f1.value or 0) - (earlier.f1.value or 0) if earlier else None,
            min_f1=0.615,
            verdict="met" if earlier else None,
            reason=None if earlier else "the base model was not scored",
        ),
        overall=Overall(
            tuned=tuned,
            base=earlier,
            difference=None
            if earlier is None
            else Differences(
                **{
                    key: estimate(
                        None
                        if getattr(tuned, key).value is None or getattr(earlier, key).value is None
                        else getattr(tuned, key).value - getattr(earlier, key).value,
                        0.04,
                    )
                    for key in FIGURES
                }
            ),
        ),
        groups=groups,
        by_source=tuple(
            stratum(name, truth[k::2], called[k::2], None if before is None else before[k::2])
            for k, name in enumerate(("hatexplain", "toxigen"))
            if n > 1
        ),
        by_detail=tuple(
            stratum(
                name,
                truth[detail == k],
                called[detail == k],
                None if before is None else before[detail == k],
            )
            for k, name in enumerate(details)
            if (detail == k).any()
        ),
        functional=tuple(
            functionality(name, made, detail == k, called, before)
            for k, name in enumerate(details)
            if (detail == k).any()
        ),
        parity=ParityReport(
            tuned=parity(made, called),
            base=None if before is None else parity(made, before),
            resamples=2000,
        )
        if len(groups) > 1
        else None,
        before_after=None
        if before is None
        else BeforeAfter(
            overall=paired(truth, before, called),
            groups=tuple(
                GroupPaired(
                    group=name, paired=paired(truth[mask], before[mask], called[mask], len(names))
                )
                for number, name in enumerate(names)
                if (mask := made.of(number)).any()
            ),
        ),
        baselines=Baselines(
            always_positive=overall(truth, np.ones_like(truth), None),
            group_majority=overall(truth, made.group % 2 == 0, None),
        ),
        caps=given,
        caps_verdict=verdicts.summarise(given),
        min_f1=least,
        thresholds=(
            at("argmax", None, called, made, caps, least),
            *((at("fitted", fit, made.score >= fit, made, caps, least),) if scores else ()),
        ),
        curves=curves(made) if scores else None,
        worst_mistakes=tuple(
            Mistake(
                id=f"row-{row}",
                group=names[made.group[row]] if names else None,
                source=("hatexplain", "toxigen")[row % 2],
                detail=details[detail[row]] if details else None,
                label="hate" if truth[row] else "normal",
                prediction="hate" if called[row] else "normal",
                score=float(made.score[row]),
            )
            for row in surest
        ),
        format_sample=FormatSample(
            rows=50,
            outside=rates.rate(2, 50, LEVEL, empty="no rows"),
            disagree=rates.rate(1, 48, LEVEL, empty="no rows"),
            examples=("I cannot help with that.", '{"classification": "hateful"}'),
        ),
        warnings=(
            ReportWarning(
                code="shared_rows",
                detail="4 texts of the test split are in the training split, too.",
            ),
        ),
    )
    return built.model_copy(update=changes)


def texts_of(made: BiasReport, text: str = "A sentence about {group}, made up.") -> dict[str, str]:
    return {row.id: text.format(group=row.group) for row in made.worst_mistakes}


def comparison(names: Sequence[str] = GROUPS, models: int = 4, **changes: Any) -> Comparison:
    """Models of unequal skill on the same random rows."""
    made = rows(names)
    random = np.random.default_rng(11)
    called = [
        made.score + random.normal(0, 0.05 + 0.08 * model, len(made.truth)) >= 0.4 + 0.09 * model
        for model in range(models)
    ]
    entries = []
    for model, answers in enumerate(called):
        whole = overall(made.truth, answers, made.score)
        given = judged(answers, made, CAPS)
        over = [(cap.observed - cap.max, cap) for cap in given if cap.observed is not None]
        worst = max(over, key=lambda one: one[0], default=None)
        entries.append(
            Compared(
                entry=f"run_{model}" + (f"@{model * 90}" if model else ""),
                run_id=f"run_{model}",
                step=model * 90 or None,
                evaluation_id=None,
                name=f"attempt {model + 1}",
                base_model="smollm2-135m-instruct",
                template="hate_speech_simple",
                rule="fitted" if model else "argmax",
                threshold=0.4 + 0.09 * model if model else None,
                confusion=rates.confusion(made.truth, answers),
                f1=whole.f1,
                accuracy=whole.accuracy,
                auc=whole.auc,
                fpr=whole.fpr,
                fnr=whole.fnr,
                groups=at("given", 0.5, answers, made, CAPS, None).groups,
                caps=given,
                caps_verdict=verdicts.summarise(given),
                worst_excess=WorstExcess(
                    value=worst[0] if worst else None,
                    group=worst[1].group if worst else None,
                    metric=worst[1].metric if worst else None,
                    reason=None if worst else "no cap applies",
                ),
                pareto=model in (0, 1, 3),
            )
        )
    tests = models * (models - 1) / 2
    built = Comparison(
        data=ComparisonData(
            dataset_hash="9f2c" * 16,
            split="test",
            rows=len(made.truth),
            positives=int(made.truth.sum()),
            negatives=int((~made.truth).sum()),
        ),
        positive_label="hate",
        confidence=LEVEL,
        caps=tuple(ComparedCap(group=c.group, metric=c.metric, max=c.max) for c in CAPS),
        min_f1=0.615,
        settings_of="run_0",
        entries=tuple(entries),
        pairs=tuple(
            Pair(
                first=entries[one].entry,
                second=entries[two].entry,
                paired=paired(made.truth, called[one], called[two], tests if tests > 1 else None),
            )
            for one in range(models)
            for two in range(one + 1, models)
        ),
        warnings=(),
    )
    return built.model_copy(update=changes)
