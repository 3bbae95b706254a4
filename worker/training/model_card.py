"""Model card of the adapter: README.md for the Hub, peft and human readers.

Names chosen by users (run, labels, groups) are written on one line and without characters that are
markup in Markdown or HTML; the metadata are written by huggingface_hub, which quotes them.
"""

from collections.abc import Iterator, Sequence

from service.domain.job import Job
from service.fairness import BiasReport
from service.fairness.schema import CapVerdict, Estimate, RateEstimate
from worker.training.loading_snippet import loading_snippet

_FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "calibration_error": "expected calibration error",
}
_INDEXED = {"f1": "f1", "accuracy": "accuracy", "auc": "roc_auc"}
"""Metrics in the metadata, with the Hub's identifiers."""


def model_card(
    job: Job,
    rows: dict[str, int],
    labels: list[str],
    steps: int,
    chosen_step: int,
    trainable: int,
    evaluated: dict[str, float],
    report: BiasReport | None,
    prompt_notes: Sequence[str] = (),
) -> str:
    """Return the card's text.

    `rows` are counts by split, `evaluated` is eval_results.json, `prompt_notes` are sentences on
    how to send the trained prompt.
    """
    spec = job.spec
    lines = [
        "---",
        _metadata(job, report),
        "---",
        "",
        f"# {escape_markdown(spec.name or job.run_id)}",
        "",
        f"A LoRA adapter that makes `{spec.base_model}` a classifier, trained by Fairtune in run",
        f"`{job.run_id}`. The licences of the base model and of the data apply; Fairtune does not",
        "know them.",
        "",
        *intended_use(labels, job.template.name),
        "Decisions about people need human review; the error rates by group below show for whom",
        "the model errs more often.",
        "",
        f"Dataset: {_dataset(job)}.",
        f"Number of rows: {', '.join(f'{count} {split}' for split, count in rows.items())}.",
        "",
        *prompt_section(prompt_notes),
        *_training(job, steps, chosen_step, trainable),
    ]
    if report is not None:
        lines += _results(report, evaluated)
    elif evaluated:
        lines += ["## Results", "", "| figure | value |", "| --- | --- |"]
        lines += [f"| {escape_markdown(name)} | {value:.4f} |" for name, value in evaluated.items()]
        lines.append("")
    lines += [
        "## How to load it",
        "",
        "```python",
        *loading_snippet(spec.base_model).splitlines(),
        "```",
        "",
    ]
    return "\n".join(lines)


def intended_use(labels: Sequence[str], template: str) -> list[str]:
    """Return the lines of the section that adapters and merged models have in common."""
    label_list = ", ".join(f"`{escape_markdown(label)}`" for label in labels) or "labels"
    return [
        "## Intended use",
        "",
        f"Classifying short texts into {label_list} under the prompt template `{template}`.",
        "The probability of a label is that of its whole answer among all labels' answers.",
    ]


def prompt_section(notes: Sequence[str]) -> list[str]:
    """Return the lines of the section on the prompt; none without notes."""
    if not notes:
        return []
    return ["## Prompt", "", *(f"- {note}" for note in notes), ""]


def _dataset(job: Job) -> str:
    """Return the dataset's name with its id; a job of an earlier version has no name."""
    identifier = f"`{job.spec.dataset_id}`"
    if job.dataset_name is None:
        return identifier
    return f"{escape_markdown(job.dataset_name)} ({identifier})"


def _metadata(job: Job, report: BiasReport | None) -> str:
    """Return the YAML metadata, with metrics as model-index as the Hub's model cards specify it."""
    from huggingface_hub import EvalResult, ModelCardData

    spec = job.spec

    def figure(kind: str, name: str, value: float, group: str | None = None) -> EvalResult:
        assert report is not None
        return EvalResult(
            task_type="text-classification",
            dataset_type=spec.dataset_id,
            dataset_name=one_line(job.dataset_name or spec.dataset_id),
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
    precision = (
        f"4-bit ({quantization.bnb_4bit_quant_type}) while training"
        if quantization.load_in_4bit
        else "16- or 32-bit"
    )
    targets = lora.target_modules
    named_layers = [targets] if isinstance(targets, str) else targets
    layers = ", ".join(escape_markdown(name) for name in [*named_layers, *lora.target_parameters])
    criteria = {
        "best_metric": "with the lowest validation loss",
        "best_f1_within_caps": "with the best F1 within the caps on validation",
    }[spec.fairness.select]
    criterion = (
        f", {criteria}"
        if training.load_best_model_at_end and training.eval_strategy != "no"
        else ""
    )
    yield from [
        "## Training",
        "",
        "| | |",
        "| --- | --- |",
        f"| base weights | {precision} |",
        f"| LoRA | r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout} |",
        f"| adapted layers | {layers} |",
        f"| trained parameters | {trainable:,} |",
        f"| learning rate | {training.learning_rate:g}, {training.lr_scheduler_type} |",
        f"| effective batch | {spec.effective_batch_size} rows |",
        f"| maximum sequence length | {training.max_seq_length} tokens |",
        f"| steps | {steps}, weights of step {chosen_step}{criterion} |",
        f"| seed | {spec.seed} |",
        "",
    ]


def _results(report: BiasReport, evaluated: dict[str, float]) -> Iterator[str]:
    data, positive = report.data, escape_markdown(report.settings.positive_label)
    level = f"{report.settings.confidence * 100:.6g} %"
    loss = evaluated.get("eval_loss")
    yield from [
        "## Results",
        "",
        f"On the {report.meta.split} split: {data.rows} rows, {data.positives} `{positive}` and "
        f"{data.negatives} other, by the threshold rule `{report.meta.threshold}`. Confidence "
        f"intervals are two-sided, at {level}."
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
            f"FPR: share of other rows predicted as `{positive}`. FNR: share of `{positive}` rows",
            "predicted as other.",
            "",
            "| group | rows | FPR | interval | FNR | interval |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for group in report.groups:
            cells = [escape_markdown(group.group), str(group.n)]
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
            f"Verdicts use one-sided Clopper-Pearson limits at {level}; `inconclusive` is no pass.",
            "",
            "| group | cap | verdict | observed | limits |",
            "| --- | --- | --- | --- | --- |",
        ]
        yield from (_cap(cap) for cap in report.caps)
        yield from ["", f"All caps: `{report.caps_verdict}`."]
    if (min_f1 := report.min_f1) is not None:
        verdict = {"met": "met", "not_met": "not met", None: "unknown"}[min_f1.verdict]
        yield f"F1 of at least {min_f1.min_f1:g}: {verdict}."
    yield ""


def _cap(cap: CapVerdict) -> str:
    observed, limits = "n/a", "n/a"
    if cap.observed is not None and cap.lower is not None and cap.upper is not None:
        observed = f"{cap.observed:.3f} ({cap.numerator} of {cap.denominator})"
        limits = f"{cap.lower:.3f}, {cap.upper:.3f}"
    name = f"{escape_markdown(cap.group)} | {cap.metric.upper()} under {cap.max:g}"
    return f"| {name} | `{cap.verdict}` | {observed} | {limits} |"


def _thresholds(report: BiasReport, positive: str) -> Iterator[str]:
    """Yield the threshold rule in use, and the results of the others on the same rows."""
    rule_in_use = next(rule for rule in report.thresholds if rule.rule == report.meta.threshold)
    yield from ["### Threshold", ""]
    if rule_in_use.threshold is None:
        yield "Predict the most probable label of a row (argmax); the metrics above use this rule."
    else:
        yield (
            f"Predict `{positive}` if that label's probability is at least "
            f"{rule_in_use.threshold!r}, regardless of the other labels' probabilities; the "
            "metrics above use this rule."
        )
    yield from [
        "",
        "| rule | threshold | F1 | accuracy | all caps |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rule in report.thresholds:
        threshold = "n/a" if rule.threshold is None else f"{rule.threshold:.6g}"
        f1, accuracy = _value(rule.overall.f1), _value(rule.overall.accuracy)
        yield f"| {rule.rule} | {threshold} | {f1} | {accuracy} | `{rule.caps_verdict}` |"
    yield ""
    for rule in report.thresholds:
        if rule.fit is not None:
            feasibility = (
                "it satisfies every limit"
                if rule.fit.feasible
                else "no threshold satisfied every limit"
            )
            yield (
                "The fitted threshold gave the best F1 within the caps on "
                f"{rule.fit.rows} rows of the {rule.fit.split} split "
                f"({feasibility})."
            )
            yield ""


def _limits(report: BiasReport) -> Iterator[str]:
    yield from ["## Limits", ""]
    yield from (f"- {escape_markdown(warning.detail)}" for warning in report.warnings)
    yield from [
        "- The metrics are of one split of one dataset. Errors may be more frequent on texts of",
        "  another kind, time or language, and for other groups.",
        "- Intervals and limits cover the sampling of rows only, not wrong labels.",
        "- Groups that the data does not name are in the overall metrics only.",
        "",
        "The full report is in `bias_report.json` beside this file.",
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


def escape_markdown(text: str) -> str:
    """Return the text on one line, without characters that are markup in Markdown or HTML."""
    return "".join("_" if char in "<>|`[]*#\\" else char for char in one_line(text))
