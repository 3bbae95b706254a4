"""Warnings of a plan: settings and data that are likely to waste a run."""

from collections.abc import Iterator
from typing import NamedTuple

from service.datasets.stats import DatasetStats
from service.datasets.templates import builtin_templates
from service.domain.spec import RunSpec
from service.domain.steps import StepPlan
from service.domain.wording import agree, count
from service.usecases.run_checks import cap_warnings, chooses_on_validation

_CHARACTERS_PER_TOKEN = 5
"""Of English instructions; most tokenizers have fewer, so that the estimate is low."""


class PlanWarning(NamedTuple):
    code: str
    """Stable identifier, such as long_warmup."""
    detail: str


def plan_warnings(spec: RunSpec, stats: DatasetStats, steps: StepPlan) -> Iterator[PlanWarning]:
    """Yield the warnings of a run on a dataset with these statistics."""
    if text := steps.warmup_warning():
        yield PlanWarning("long_warmup", text)
    if spec.resources.num_processes > 1:
        yield _several_processes(spec)
    if stats.kind == "text":
        yield from _template_warnings(spec)
    yield from _evaluation_warnings(spec, stats, steps)
    yield from _label_warnings(spec, stats)
    yield from _class_warnings(spec, stats)
    for cap in spec.fairness.caps:
        if cap.group not in stats.groups:
            detail = f"the dataset lacks the group {cap.group}: its cap will be not_applicable"
            yield PlanWarning("missing_group", detail)
    for code, detail in cap_warnings(spec, stats):
        yield PlanWarning(code, detail)
    if shared := sum(stats.shared_rows.values()):
        detail = (
            f"{count(shared, 'row')} of validation and test also "
            f"{agree(shared, 'occurs', 'occur')} in an earlier split: the figures will look better "
            "than they are"
        )
        yield PlanWarning("shared_rows", detail)


def _several_processes(spec: RunSpec) -> PlanWarning:
    processes, training = spec.resources.num_processes, spec.training
    detail = (
        f"with {processes} processes an optimizer step takes {spec.effective_batch_size} rows "
        f"(per_device_train_batch_size {training.per_device_train_batch_size} * "
        f"gradient_accumulation_steps {training.gradient_accumulation_steps} * {processes}); a "
        f"worker's machine with GPUs must have {processes} of them"
    )
    return PlanWarning("several_processes", detail)


def _template_warnings(spec: RunSpec) -> Iterator[PlanWarning]:
    """Yield a warning for each template whose instruction alone is likely to be too long."""
    limit = spec.training.max_seq_length
    baseline = spec.evaluation.baseline_template if spec.evaluation.baseline else None
    for name in dict.fromkeys(filter(None, (spec.template, baseline))):
        template = builtin_templates()[name]
        characters = len(template.system or "") + len(template.user) + len(template.completion)
        tokens = characters // _CHARACTERS_PER_TOKEN
        if tokens > limit:
            detail = (
                f"the instruction of the template {name} takes some {tokens} tokens or more, and "
                f"training.max_seq_length is {limit}: the run is likely to fail with invalid_spec; "
                "raise it, or choose another template"
            )
            yield PlanWarning("prompt_too_long", detail)


def _evaluation_warnings(
    spec: RunSpec, stats: DatasetStats, steps: StepPlan
) -> Iterator[PlanWarning]:
    validation = stats.splits.get("validation")
    consequence = (
        "there is no evaluation during training and no early stopping, and the last checkpoint "
        "counts as the best"
    )
    if validation is None:
        detail = f"the dataset has no validation split: {consequence}"
        yield PlanWarning("no_validation", detail)
    elif stats.kind == "text" and not validation.labels:
        detail = f"the rows of the validation split have no labels: {consequence}"
        yield PlanWarning("no_validation", detail)
    elif text := steps.evaluation_warning(
        spec.training, chooses=spec.fairness.select == "best_f1_within_caps"
    ):
        yield PlanWarning("no_choice", text)


def _label_warnings(spec: RunSpec, stats: DatasetStats) -> Iterator[PlanWarning]:
    splits = spec.evaluation.splits
    if not stats.splits["train"].labels:
        detail = "the training rows have no labels: there will be no bias report"
        yield PlanWarning("no_report", detail)
    elif not any(split in stats.splits and stats.splits[split].has_labels for split in splits):
        detail = (
            f"the dataset has no labelled rows in the split {', '.join(splits)}: there will be no "
            "bias report"
        )
        yield PlanWarning("no_report", detail)


def _class_warnings(spec: RunSpec, stats: DatasetStats) -> Iterator[PlanWarning]:
    """Yield a warning for each split that is measured or chosen on and lacks a class."""
    positive = spec.fairness.positive_label
    trained = stats.splits["train"].labels
    if not trained:
        return
    for name in spec.evaluation.splits:
        labels = stats.splits[name].labels if name in stats.splits else {}
        if not labels:
            continue
        if positive not in labels:
            detail = (
                f"no row of {name} is labelled {positive!r}: recall, F1 and AUC cannot be measured "
                f"on {name}, and min_f1 stays undecided"
            )
            yield PlanWarning("no_positives", detail)
        elif set(labels) == {positive}:
            detail = (
                f"every row of {name} is labelled {positive!r}: false positive rates and AUC "
                f"cannot be measured on {name}"
            )
            yield PlanWarning("no_negatives", detail)
        if missing := [label for label in trained if label not in labels and label != positive]:
            words = " or ".join(map(repr, missing))
            detail = f"no row of {name} is labelled {words}: {name} says nothing about the class"
            yield PlanWarning("missing_class", detail)
    validation = stats.splits.get("validation")
    if (
        chooses_on_validation(spec)
        and validation is not None
        and set(validation.labels) == {positive}
    ):
        detail = (
            f"every row of validation is labelled {positive!r}: the checkpoint or the threshold is "
            f"chosen on one class, where calling every text {positive!r} is the best choice"
        )
        yield PlanWarning("one_class", detail)
