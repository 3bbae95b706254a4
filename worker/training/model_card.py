"""README.md of the adapter: the model card that the Hub, peft and people read.

What users named (run, labels, groups) is on one line and without characters that Markdown or HTML
would act on; the metadata are written by huggingface_hub, which quotes them.
"""

from collections.abc import Iterator

from service.domain.job import Job
from service.fairness import BiasReport
from service.fairness.schema import CapVerdict, Estimate, RateEstimate

_FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "calibration_error": "expected calibration error",
}
_INDEXED = {"f1": "f1", "accuracy": "accuracy", "auc": "roc_auc"}
"""Figures of the metadata, with the Hub's identifiers of metrics."""


def model_card(
    job: Job,
    rows: dict[str, int],
    labels: list[str],
    steps: int,
    chosen_step: int,
    trainable: int,
    evaluated: dict[str, float],
    report: BiasReport | None,
) -> str:
    """The whole file. `rows` are counts by split, `evaluated` is eval_results.json."""
    spec = job.spec
    named = ", ".join(f"`{plain(label)}`" for label in labels) or "labels"
    lines = [
        "---",
        _metadata(job, report),
        "---",
        "",
        f"# {plain(spec.name or job.run_id)}",
        "",
        f"A LoRA adapter that makes `{spec.base_model}` a classifier, trained by Fairtune in run",
        f"`{job.run_id}`. Its licence is that of the base model and of the data, which Fairtune",
        "does not know.",
        "",
        "## Intended use",
        "",
        f"Classifying short texts into {named} under the prompt template `{job.template.name}`.",
        "The probability of a label is that of its whole answer against the other labels' answers.",
        "Not for decisions about people without a person who looks at them; see the rates by group",
        "below for whom it gets wrong.",
        "",
        f"Rows of the data: {', '.join(f'{count} {split}' for split, count in rows.items())}.",
        "",
        *_training(job, steps, chosen_step, trainable),
    ]
    if report is not None:
        lines += _results(report, evaluated)
    elif evaluated:
        lines += ["## Results", "", "| figure | value |", "| --- | --- |"]
        lines += [f"| {plain(name)} | {value:.4f} |" for name, value in evaluated.items()]
        lines.append("")
    lines += [
        "## How to load it",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{spec.base_model}")',
        'model = PeftModel.from_pretrained(model, "this directory")',
        "```",
        "",
    ]
    return "\n".join(lines)


def _metadata(job: Job, report: BiasReport | None) -> str:
    """YAML, the figures as model-index as the Hub's specification of model cards has it."""
    from huggingface_hub import EvalResult, ModelCardData

    spec = job.spec

    def figure(kind: str, name: str, value: float, group: str | None = None) -> EvalResult:
        assert report is not None
        return EvalResult(
            task_type="text-classification",
            dataset_type=spec.dataset_id,
            dataset_name=spec.dataset_id,
            dataset_split=report.meta.split,
            metric_type=kind,
            metric_name=name,
            metric_value=value,
            metric_args=None if group is None else {"group": group},
        )

    def figures() -> Iterator[EvalResult]:
        if report is None:
            return
        for name, kind in _INDEXED.items():
            value = getattr(report.overall.tuned, name).value
            if value is not None:
                yield figure(kind, _FIGURES[name], value)
        for group in report.groups:
            for kind, short, rate in (
                ("false_positive_rate", "FPR", group.tuned.fpr),
                ("false_negative_rate", "FNR", group.tuned.fnr),
            ):
                if rate.value is not None:
                    yield figure(
                        kind, f"{short} on {one_line(group.group)}", rate.value, group.group
                    )

    data = ModelCardData(
        base_model=spec.base_model,
        library_name="peft",
        license="other",
        license_name="as-the-base-model",
        model_name=one_line(spec.name or job.run_id),
        pipeline_tag="text-classification",
        tags=["lora", "fairtune"],
        eval_results=list(figures()) or None,
    )
    return str(data.to_yaml())


def _training(job: Job, steps: int, chosen_step: int, trainable: int) -> Iterator[str]:
    spec = job.spec
    training, lora, quantization = spec.training, spec.lora, spec.quantization
    held = (
        f"4-bit ({quantization.bnb_4bit_quant_type}) while training"
        if quantization.load_in_4bit
        else "16- or 32-bit"
    )
    targets = lora.target_modules
    named_layers = [targets] if isinstance(targets, str) else targets
    layers = ", ".join(plain(name) for name in [*named_layers, *lora.target_parameters])
    chosen = {
        "best_metric": "of the lowest validation loss",
        "best_f1_within_caps": "of the best F1 within the caps on validation",
    }[spec.fairness.select]
    by = f", {chosen}" if training.load_best_model_at_end and training.eval_strategy != "no" else ""
    yield from [
        "## Training",
        "",
        "| | |",
        "| --- | --- |",
        f"| base weights | {held} |",
        f"| LoRA | r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout} |",
        f"| layers with an adapter | {layers} |",
        f"| trained parameters | {trainable:,} |",
        f"| learning rate | {training.learning_rate:g}, {training.lr_scheduler_type} |",
        f"| effective batch | {spec.effective_batch_size} rows |",
        f"| longest sequence | {training.max_seq_length} tokens |",
        f"| steps | {steps}, weights of step {chosen_step}{by} |",
        f"| seed | {spec.seed} |",
        "",
    ]


def _results(report: BiasReport, evaluated: dict[str, float]) -> Iterator[str]:
    data, positive = report.data, plain(report.settings.positive_label)
    level = f"{report.settings.confidence * 100:.6g} %"
    loss = evaluated.get("eval_loss")
    yield from [
        "## Results",
        "",
        f"On the {report.meta.split} split: {data.rows} rows, {data.positives} `{positive}` and "
        f"{data.negatives} other, by the threshold rule `{report.meta.threshold}`. Intervals are "
        f"two-sided, at {level}."
        + ("" if loss is None else f" Validation loss of these weights: {loss:.4f}."),
        "",
        "| figure | value | interval |",
        "| --- | --- | --- |",
    ]
    for name, title in _FIGURES.items():
        figure: Estimate | RateEstimate = getattr(report.overall.tuned, name)
        yield f"| {title} | {_value(figure)} | {_interval(figure)} |"
    yield ""
    if report.groups:
        yield from [
            "### By group",
            "",
            f"FPR: other rows called `{positive}`. FNR: `{positive}` rows called other.",
            "",
            "| group | rows | FPR | interval | FNR | interval |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for group in report.groups:
            cells = [plain(group.group), str(group.n)]
            for rate in (group.tuned.fpr, group.tuned.fnr):
                cells += [_value(rate), _interval(rate)]
            yield f"| {' | '.join(cells)} |"
        yield ""
    yield from _caps(report, level)
    yield from _thresholds(report, positive)
    yield from _limits(report)


def _caps(report: BiasReport, level: str) -> Iterator[str]:
    if not report.caps and report.min_f1 is None:
        return
    yield from ["### Release limits", ""]
    if report.caps:
        yield from [
            f"Judged by one-sided Clopper-Pearson limits at {level}; `inconclusive` is no pass.",
            "",
            "| group | cap | verdict | observed | limits |",
            "| --- | --- | --- | --- | --- |",
        ]
        yield from (_cap(cap) for cap in report.caps)
        yield from ["", f"All caps: `{report.caps_verdict}`."]
    if (least := report.min_f1) is not None:
        verdict = {"met": "met", "not_met": "not met", None: "unknown"}[least.verdict]
        yield f"F1 of at least {least.min_f1:g}: {verdict}."
    yield ""


def _cap(cap: CapVerdict) -> str:
    observed, limits = "n/a", "n/a"
    if cap.observed is not None and cap.lower is not None and cap.upper is not None:
        observed = f"{cap.observed:.3f} ({cap.numerator} of {cap.denominator})"
        limits = f"{cap.lower:.3f}, {cap.upper:.3f}"
    name = f"{plain(cap.group)} | {cap.metric.upper()} under {cap.max:g}"
    return f"| {name} | `{cap.verdict}` | {observed} | {limits} |"


def _thresholds(report: BiasReport, positive: str) -> Iterator[str]:
    """Which rule to decide by, and what the others would give on the same rows."""
    used = next(one for one in report.thresholds if one.rule == report.meta.threshold)
    yield from ["### Threshold", ""]
    if used.threshold is None:
        yield "Call a row by its most probable label (argmax): the figures above are by that rule."
    else:
        yield (
            f"Call a row `{positive}` when that label's probability is at least "
            f"{used.threshold!r}, whatever the other labels': the figures above are by that rule."
        )
    yield from [
        "",
        "| rule | threshold | F1 | accuracy | all caps |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in report.thresholds:
        at = "n/a" if one.threshold is None else f"{one.threshold:.6g}"
        f1, accuracy = _value(one.overall.f1), _value(one.overall.accuracy)
        yield f"| {one.rule} | {at} | {f1} | {accuracy} | `{one.caps_verdict}` |"
    yield ""
    for one in report.thresholds:
        if one.fit is not None:
            holds = (
                "every limit holds there" if one.fit.feasible else "no threshold held all limits"
            )
            yield (
                f"The fitted threshold gave the best F1 within the caps on {one.fit.rows} rows of "
                f"the {one.fit.split} split ({holds})."
            )
            yield ""


def _limits(report: BiasReport) -> Iterator[str]:
    yield from ["## Limits", ""]
    yield from (f"- {plain(warning.detail)}" for warning in report.warnings)
    yield from [
        "- The figures are of one split of one dataset. Texts of another kind, time or language",
        "  may be got wrong more often, and of other groups.",
        "- Intervals and limits are about the sampling of rows alone, not about wrong labels.",
        "- A group that the data does not name is in the overall figures only.",
        "",
        "`bias_report.html` (or `.json`) beside this file has the whole report.",
        "",
    ]


def _value(figure: Estimate | RateEstimate) -> str:
    return "n/a" if figure.value is None else f"{figure.value:.3f}"


def _interval(figure: Estimate | RateEstimate) -> str:
    if figure.lower is None or figure.upper is None:
        return ""
    return f"{figure.lower:.3f} to {figure.upper:.3f}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def plain(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would act on."""
    return "".join("_" if sign in "<>|`[]*#\\" else sign for sign in one_line(text))
