"""The scripts' configuration as the specification of a run: a pure function."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.cli.original.arguments import Flaw, Refused
from service.cli.original.keys import FILE_OF_PART, KEYS, key_of_pointer
from service.cli.original.other_keys import FIXED, is_accepted
from service.domain.training_spec import TrainingSection

ALL_CHECKPOINTS = 10_000_000
"""Value of save_total_limit that no run reaches."""
_TRANSFORMERS_SAVE_STEPS = 500


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A call of `fairtune train`, checked."""

    specification: dict[str, Any]
    """Body of POST /v1/runs, without the dataset."""
    files: dict[str, Path]
    """Split -> file, of the dataset's upload."""
    output_dir: Path
    logging_dir: Path | None
    """Directory of TensorBoard's files; None: there are none."""
    starts_anew: bool
    """True if an unfinished run of the output directory is not continued."""
    retries_failed: bool
    """True if a failed run of the output directory is continued."""
    notes: tuple[str, ...]
    """Sentences about settings that have no effect, or another one than in the scripts."""


def resolve(
    config: Mapping[str, Any],
    flags: Mapping[str, Any],
    exists: Callable[[Path], bool] = Path.is_file,
) -> TrainingRequest:
    """Merge the flags into the configuration and return the run that they describe.

    Both are values by key, as read by `arguments`. Keys that neither sets have the value of the
    preset default, which is that of the published default.json. Raises Refused, with every flaw.
    """
    values, notes = _merged(config, flags)
    flaws = [
        Flaw(name, f"{value!r} cannot be honoured; {FIXED[name].reason}")
        for name, value in values.items()
        if name in FIXED and not is_accepted(name, value)
    ]
    ignored = [name for name in values if name not in KEYS and name not in FIXED]
    if ignored:
        notes.append(f"Without effect here: {', '.join(sorted(ignored))}.")
    files = {part: Path(values[key]) for part, key in FILE_OF_PART.items() if values.get(key)}
    flaws += [
        Flaw(key, "is missing") for key in ("train_file", "output_dir") if not values.get(key)
    ]
    flaws += [
        Flaw(FILE_OF_PART[part], f"{path} is no file")
        for part, path in files.items()
        if not exists(path)
    ]
    specification = _specification(values, notes)
    if "test" not in files and "validation" in files:
        specification["evaluation"] = {"splits": ["validation"]}
    flaws += _spec_flaws(specification)
    if flaws:
        raise Refused(flaws)
    output_dir = Path(values["output_dir"])
    specification.setdefault("name", output_dir.resolve().name or "train")
    return TrainingRequest(
        specification=specification,
        files=files,
        output_dir=output_dir,
        logging_dir=_logging_dir(values, output_dir, notes),
        starts_anew=bool(values.get("overwrite_output_dir")),
        retries_failed=bool(values.get("resume_from_checkpoint")),
        notes=tuple(notes),
    )


def _merged(
    config: Mapping[str, Any], flags: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the flags over the file, where each alternative is set once, and notes."""
    values = {**config, **flags}
    notes: list[str] = []
    # A flag also overrides what excludes it in the file.
    for flag, excluded in (("num_train_epochs", "max_steps"), ("warmup_ratio", "warmup_steps")):
        if flag in flags and excluded not in flags:
            values.pop(excluded, None)
    # Between two of the same origin, transformers decides.
    if (values.get("max_steps") or 0) <= 0:
        values.pop("max_steps", None)
    elif values.pop("num_train_epochs", None) is not None:
        notes.append("max_steps is used instead of num_train_epochs, as in transformers.")
    warmup = values.get("warmup_steps")
    if warmup is not None and 0 < warmup < 1:
        del values["warmup_steps"]
        values["warmup_ratio"] = warmup
    elif values.get("warmup_ratio") is not None and warmup is not None:
        superseded = "warmup_ratio" if warmup > 0 else "warmup_steps"
        del values[superseded]
        if warmup > 0:
            notes.append("warmup_steps is used instead of warmup_ratio, as in transformers.")
    _complete_intervals(values, notes)
    if "save_total_limit" in values and (values["save_total_limit"] or 0) <= 0:
        values["save_total_limit"] = ALL_CHECKPOINTS
    return {name: value for name, value in values.items() if value is not None}, notes


def _complete_intervals(values: dict[str, Any], notes: list[str]) -> None:
    """Set or remove eval_steps and save_steps, as their strategies require."""

    def value(name: str) -> Any:
        setting = values.get(name)
        return TrainingSection.model_fields[name].default if setting is None else setting

    for kind in ("eval", "save"):
        strategy, steps = value(f"{kind}_strategy"), f"{kind}_steps"
        if strategy == "steps" and values.get(steps) is None:
            values[steps] = value("logging_steps") if kind == "eval" else _TRANSFORMERS_SAVE_STEPS
            notes.append(f"{steps} is {values[steps]}, as in transformers where it is not set.")
        elif strategy != "steps" and values.pop(steps, None) is not None:
            notes.append(f"{steps} has no effect with {kind}_strategy {strategy}.")


def _specification(values: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    specification: dict[str, Any] = {"preset": "default"}
    for name, value in values.items():
        key = KEYS.get(name)
        if key is None or key.field is None:
            continue
        section = specification
        if key.section is not None:
            section = specification.setdefault(key.section, {})
        section[key.field] = _translated(name, value, notes)
    return specification


def _translated(name: str, value: Any, notes: list[str]) -> Any:
    """Return the specification's spelling of a value."""
    if name == "lora_target_modules" and value == ["all-linear"]:
        return "all-linear"
    if name == "metric_for_best_model" and value == "loss":
        return "eval_loss"
    if name == "bnb_4bit_compute_dtype":
        return value.removeprefix("torch.")
    if name == "optim" and value == "adamw_torch_fused":
        notes.append("optim is adamw_torch, the same algorithm as adamw_torch_fused.")
        return "adamw_torch"
    if name == "warmup_steps" and float(value).is_integer():
        return int(value)
    return value


def _spec_flaws(specification: Mapping[str, Any]) -> Iterator[Flaw]:
    """Yield what the specification's own checks refuse, by key."""
    from pydantic import ValidationError

    from service.domain.spec import RunSpec, overlay
    from service.domain.validation import invalid
    from service.presets import presets

    base = presets()[specification["preset"]].values
    try:
        RunSpec.model_validate(overlay(base, {**specification, "dataset_id": "not yet"}))
    except ValidationError as error:
        for item in invalid(error).errors:
            yield Flaw(key_of_pointer(item.pointer).lstrip("/"), item.detail)


def _logging_dir(values: Mapping[str, Any], output_dir: Path, notes: list[str]) -> Path | None:
    programs = set(values.get("report_to", ["tensorboard"]))
    if not programs or programs == {"none"}:
        return None
    if not programs & {"tensorboard", "all"}:
        notes.append(f"report_to: files are written for TensorBoard, not {', '.join(programs)}.")
    return Path(values.get("logging_dir") or output_dir / "logs")
