"""The flat configuration and the flags of the training script, as a run's specification."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.original.arguments import Refused, coerce, parse_flags, read_config
from service.cli.original.keys import CANONICAL, KEYS, Key
from service.cli.original.other_keys import FIXED, NO_EFFECT, has_no_effect
from service.cli.original.specification import ALL_CHECKPOINTS, TrainingRequest, resolve
from service.domain.spec import RunSpec, overlay
from service.domain.training_spec import LoraSection, QuantizationSection, TrainingSection
from service.presets import presets

FILES = {"train_file": "train.jsonl", "validation_file": "validation.jsonl", "output_dir": "out"}
OF_THE_PROCESS = {
    "cache_dir": "./data/models",
    "report_to": "tensorboard",
    "dataloader_num_workers": 4,
    "remove_unused_columns": False,
}
"""Keys of the published files that are about the script's own process."""
SPEC_KEYS = [key for key in KEYS.values() if key.field is not None]
VALUES: dict[str, list[Any]] = {
    "lora_r": [8, 64],
    "lora_alpha": [16, 128],
    "lora_dropout": [0.0, 0.1],
    "lora_target_modules": [["q_proj"], ["q_proj", "v_proj", "k_proj"]],
    "lora_bias": ["none", "all"],
    "use_rslora": [True, False],
    "load_in_4bit": [True, False],
    "bnb_4bit_quant_type": ["nf4", "fp4"],
    "bnb_4bit_compute_dtype": ["bfloat16", "float32"],
    "bnb_4bit_use_double_quant": [True, False],
    "learning_rate": [2e-4, 1e-3],
    "per_device_train_batch_size": [1, 32],
    "gradient_accumulation_steps": [1, 8],
    "weight_decay": [0.0, 0.1],
    "bf16": [True, False],
    "gradient_checkpointing": [True, False],
    "early_stopping_patience": [0, 5],
    "early_stopping_threshold": [0.0, 0.02],
    "logging_steps": [1, 50],
    "seed": [0, 7],
    "run_name": ["a name", "another"],
    "model_name_or_path": ["tiny-llama", "openai/gpt-oss-20b"],
}
"""Two values of each of some keys, in which none depends on another key."""


def resolved(config: dict[str, Any], *arguments: str) -> TrainingRequest:
    return resolve(FILES | config, parse_flags(arguments), lambda _: True)


def flaws(config: dict[str, Any], *arguments: str) -> dict[str, str]:
    with pytest.raises(Refused) as refusal:
        resolve(FILES | config, parse_flags(arguments), lambda _: True)
    return dict(refusal.value.flaws)


def value_of(request: TrainingRequest, key: Key) -> Any:
    values = request.specification
    return (values if key.section is None else values.get(key.section, {})).get(key.field)


def flat(preset: str) -> dict[str, Any]:
    """The file of the original with the values of a preset."""
    values = {"dataset_id": "ds", **presets()[preset].values}
    spec = RunSpec.model_validate(values).model_dump(mode="json")
    content = {
        key.name: (spec if key.section is None else spec[key.section])[key.field]
        for key in SPEC_KEYS
        if key.section in ("lora", "quantization", "training") or key.name == "model_name_or_path"
    }
    content = {name: value for name, value in content.items() if value is not None}
    return content | FILES | OF_THE_PROCESS


@pytest.mark.parametrize("preset", sorted(presets()))
def test_the_file_of_each_preset_gives_its_specification(preset, tmp_path):
    file = tmp_path / f"{preset}.json"
    file.write_text(json.dumps(flat(preset)))
    request = resolve(read_config(file), {}, lambda _: True)
    base = presets()["default"].values
    spec = RunSpec.model_validate(overlay(base, request.specification | {"dataset_id": "ds"}))
    expected = RunSpec.model_validate(overlay(presets()[preset].values, {"dataset_id": "ds"}))
    for section in ("lora", "quantization", "training", "fairness"):
        assert getattr(spec, section) == getattr(expected, section)
    assert request.notes == (
        "Without effect here: cache_dir, dataloader_num_workers, remove_unused_columns.",
    )
    assert request.files == {
        "train": Path("train.jsonl"),
        "validation": Path("validation.jsonl"),
    }
    assert request.logging_dir == Path("out/logs")


def test_every_training_field_of_a_specification_has_a_key():
    for section, model in (
        ("lora", LoraSection),
        ("quantization", QuantizationSection),
        ("training", TrainingSection),
    ):
        named = {key.field for key in KEYS.values() if key.section == section}
        expected = set(model.model_fields) - {"dataloader_num_workers"}  # of the process
        assert named == expected


def test_every_training_argument_of_transformers_is_honoured_refused_or_without_effect():
    from transformers import TrainingArguments

    names = {field.name for field in fields(TrainingArguments)}
    unknown = {name for name in names if name not in CANONICAL and name not in FIXED}
    assert {name for name in unknown if not has_no_effect(name)} == set()


def test_no_key_has_two_meanings():
    assert not set(CANONICAL) & set(FIXED)
    assert not set(CANONICAL) & NO_EFFECT
    assert not set(FIXED) & NO_EFFECT


@st.composite
def settings(draw) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """A file, flags, and the values that they mean together."""
    config = {name: draw(st.sampled_from(VALUES[name])) for name in draw(some_keys())}
    arguments: list[str] = []
    flags = {}
    for name in draw(some_keys()):
        flags[name] = draw(st.sampled_from(VALUES[name]))
        arguments += draw(spelled(name, flags[name]))
    written = {draw(spelling(name)): value for name, value in config.items()}
    return written, arguments, config | flags


def some_keys() -> st.SearchStrategy[set[str]]:
    return st.sets(st.sampled_from(sorted(VALUES)))


def spelling(name: str) -> st.SearchStrategy[str]:
    names = [alias for alias, key in CANONICAL.items() if key == name]
    return st.sampled_from([*names, *(alias.replace("_", "-") for alias in names)])


@st.composite
def spelled(draw, name: str, value: Any) -> list[str]:
    """The arguments of a flag, in one of the forms that HfArgumentParser takes."""
    flag = f"--{draw(spelling(name))}"
    if isinstance(value, bool):
        short = [flag] if value else [draw(st.sampled_from(["--no_", "--no-"])) + flag[2:]]
        word = draw(st.sampled_from([str(value), str(value).lower(), "yes" if value else "0"]))
        return draw(st.sampled_from([short, [flag, word], [f"{flag}={word}"]]))
    if isinstance(value, list):
        joined = draw(st.sampled_from([",", ", "])).join(value)
        return draw(st.sampled_from([[flag, joined], [f"{flag}={joined}"], [flag, *value]]))
    text = draw(
        st.sampled_from([str(value), f"{value:.1e}"] if isinstance(value, float) else [str(value)])
    )
    return draw(st.sampled_from([[flag, text], [f"{flag}={text}"]]))


@given(settings())
def test_flags_override_the_file_and_nothing_else(drawn):
    config, arguments, expected = drawn
    canonical = {CANONICAL[name.replace("-", "_")]: value for name, value in config.items()}
    request = resolved(canonical, *arguments)
    for name in VALUES:
        default = "out" if name == "run_name" else None
        assert value_of(request, KEYS[name]) == expected.get(name, default)


@given(settings())
def test_a_file_is_read_in_every_spelling(tmp_path_factory, drawn):
    config, _, _ = drawn
    file = tmp_path_factory.mktemp("config") / "config.json"
    file.write_text(json.dumps(config))
    assert read_config(file) == {
        CANONICAL[name.replace("-", "_")]: value for name, value in config.items()
    }


@given(st.sampled_from(sorted(KEYS)), st.integers(0, 40), st.sampled_from("abcxyz_"))
def test_a_misspelled_key_is_refused_with_the_near_one(name, position, letter):
    position %= len(name)
    misspelled = name[:position] + letter + name[position + 1 :]
    if misspelled in CANONICAL or misspelled in FIXED or has_no_effect(misspelled):
        return
    with pytest.raises(Refused) as refusal:
        parse_flags([f"--{misspelled}", "1", "--lora_r", "8"])
    (flaw,) = refusal.value.flaws
    assert flaw.where == f"--{misspelled}"
    if len(name) > 6:
        assert name in flaw.detail
    assert refusal.value.values == {"lora_r": 8}


def test_every_flaw_is_named_at_once(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"lora_rankk": 8, "training": {}, "bf16": "maybe", "lora_r": 8, "lora_r": 9}')
    with pytest.raises(Refused) as refusal:
        read_config(file)
    assert dict(refusal.value.flaws) == {
        "lora_r": "is in the file twice: remove one",
        "lora_rankk": "unknown key; did you mean lora_rank or lora_r?",
        "training": "is a field of Fairtune's own specification: fairtune runs create takes that "
        "file",
        "bf16": "must be true or false",
    }
    refused = flaws(
        {"use_flash_attention": True, "fp16": True, "optim": "adafactor"},
        *("--lora_dropout", "2", "--warmup_steps", "1.5", "--label_smoothing_factor", "0.1"),
    )
    assert sorted(refused) == [
        "fp16",
        "label_smoothing_factor",
        "lora_dropout",
        "optim",
        "use_flash_attention",
        "warmup_steps",
    ]
    assert "bf16" in refused["fp16"]


@pytest.mark.parametrize("text", ["{", "[]", "{'lora_r': 8}", '{"lora_r": 8,}', "\0\0\0"])
def test_a_file_that_is_no_object_is_named(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(Refused, match=r"config_file .*config\.json"):
        read_config(file)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["out"], "out"),
        (["-r", "8"], "-r"),
        (["--lora_r"], "--lora_r"),
        (["--lora_r", "--bf16"], "--lora_r"),
        (["--lora_r", "eight"], "--lora_r"),
        (["--no_lora_r"], "--no_lora_r"),
        (["--no_bf16=false"], "--no_bf16"),
        (["--learning_rate", "nan"], "--learning_rate"),
        (["--bf16=maybe"], "--bf16"),
        (["--num_train_epochs="], "--num_train_epochs"),
    ],
)
def test_a_malformed_flag_is_named(arguments, where):
    with pytest.raises(Refused) as refusal:
        parse_flags(arguments)
    assert where in dict(refusal.value.flaws)


@pytest.mark.parametrize(
    ("config", "arguments", "expected"),
    [
        ({"max_steps": 60}, "--num_train_epochs 2", {"num_train_epochs": 2}),
        ({"num_train_epochs": 2}, "--max_steps 60", {"max_steps": 60}),
        ({"num_train_epochs": 2, "max_steps": 60}, "", {"max_steps": 60}),
        ({"num_train_epochs": 2, "max_steps": 60}, "--max_steps -1", {"num_train_epochs": 2}),
        ({"num_train_epochs": 2, "max_steps": -1}, "", {"num_train_epochs": 2}),
        ({"warmup_steps": 100}, "--warmup_ratio 0.1", {"warmup_ratio": 0.1}),
        ({"warmup_ratio": 0.1}, "--warmup_steps 9", {"warmup_steps": 9}),
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, "", {"warmup_ratio": 0.1}),
        ({"warmup_steps": 0.1}, "", {"warmup_ratio": 0.1}),
        ({"save_total_limit": None}, "", {"save_total_limit": ALL_CHECKPOINTS}),
        ({"save_total_limit": 0}, "", {"save_total_limit": ALL_CHECKPOINTS}),
        ({"eval_steps": 50}, "", {}),
        (
            {"eval_strategy": "steps", "save_strategy": "steps", "save_steps": 20},
            "--logging_steps 20",
            {
                "eval_strategy": "steps",
                "eval_steps": 20,
                "save_strategy": "steps",
                "save_steps": 20,
                "logging_steps": 20,
            },
        ),
        ({"optim": "adamw_torch_fused"}, "", {"optim": "adamw_torch"}),
        ({"metric_for_best_model": "loss"}, "", {"metric_for_best_model": "eval_loss"}),
        ({"learning_rate": None, "group_by_length": False}, "--local-rank=0 --fp16 False", {}),
    ],
)
def test_settings_that_exclude_or_require_others(config, arguments, expected):
    request = resolved(config, *arguments.split())
    assert request.specification.get("training", {}) == expected


def test_the_old_name_of_eval_strategy():
    request = resolved({}, "--evaluation_strategy", "no", "--early-stopping-patience=0")
    assert request.specification["training"] == {
        "eval_strategy": "no",
        "early_stopping_patience": 0,
    }


@pytest.mark.parametrize(
    ("report_to", "directory"),
    [
        ([], Path("out/logs")),
        (["--report_to", "none"], None),
        (["--report_to", "wandb"], Path("out/logs")),
        (["--report_to", "all", "--logging_dir", "elsewhere"], Path("elsewhere")),
    ],
)
def test_where_the_files_for_tensorboard_go(report_to, directory):
    assert resolved({}, *report_to).logging_dir == directory


def test_missing_files_are_named():
    with pytest.raises(Refused) as refusal:
        resolve({"train_file": "absent.jsonl"}, {}, lambda _: False)
    assert dict(refusal.value.flaws) == {
        "output_dir": "is missing",
        "train_file": "absent.jsonl is no file",
    }


@given(
    st.sampled_from(sorted(KEYS)),
    st.none() | st.booleans() | st.text() | st.floats() | st.lists(st.text() | st.integers()),
)
def test_any_value_is_taken_or_refused(name, value):
    kinds = {"flag": bool, "whole": int, "number": float, "text": str, "list": list}
    try:
        taken = coerce(KEYS[name], value)
    except ValueError:
        return
    assert type(taken) is kinds[KEYS[name].kind]
