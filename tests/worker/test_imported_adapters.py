"""Adapters that peft trained elsewhere: scored and merged as peft itself does, or refused."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from service.adapters.weights import read_weights
from service.domain.adapter_config import AdapterConfig
from service.domain.events import EXIT_DONE, EXIT_FAILED
from tests.support.foreign_adapters import load_elsewhere, probabilities, train_elsewhere
from tests.support.train_jobs import TEMPLATE, make_job, of_type, read_json, rows, run_here, spec

SPEC = spec()
LABELS = ["hate", "normal"]
FILES = ("adapter_config.json", "adapter_model.safetensors")
REGEX = r".*layers\.[01]\.self_attn\.(q|o)_proj"
KINDS = {
    "plain": ("tiny-llama", {}),
    "dora and rslora": ("tiny-llama", {"use_dora": True, "use_rslora": True}),
    "patterns": (
        "tiny-llama",
        {
            "rank_pattern": {"layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {"v_proj": 3, "^model.layers.0.self_attn.q_proj": 40},
        },
    ),
    "names by a pattern": ("tiny-llama", {"target_modules": REGEX, "lora_alpha": 5.5}),
    "one layer": ("tiny-llama", {"layers_to_transform": [1], "init_lora_weights": "gaussian"}),
    "all but some": (
        "tiny-llama",
        {"target_modules": "all-linear", "exclude_modules": ["down_proj"], "lora_dropout": 0.2},
    ),
    "biases": ("tiny-gpt_oss", {"bias": "all"}),
    "experts": (
        "tiny-gpt_oss",
        {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
}


@pytest.fixture(scope="module")
def adapters(models_dir, tmp_path_factory):
    """Return a function that trains an adapter of a kind once, with peft alone."""
    directories = {}

    def of(kind):
        if kind not in directories:
            base, lora = KINDS[kind]
            target = tmp_path_factory.mktemp("adapter")
            directories[kind] = train_elsewhere(models_dir, target, TEMPLATE, base, **lora)
        return directories[kind]

    return of


def order(directory, models, weights, program, base="tiny-llama", **task):
    """A job directory with an imported adapter, as the supervisor lays it out."""
    fields = {"target": "adapter", "step": 0, "labels": LABELS} | task
    job = make_job(
        directory,
        models,
        spec(base_model=base),
        kind=program,
        task=fields,
        adapter="adapter",
        imported=True,
    )
    (job / "adapter").mkdir()
    for name in FILES:
        shutil.copy(weights / name, job / "adapter")
    return job


def evaluation(directory, models, weights, **fields):
    task = {"dataset_id": "ds_1", "split": "test", "template": "tiny"}
    return order(directory, models, weights, "evaluate", **task, **fields)


def merge(directory, models, weights, **fields):
    task = {
        "dtype": "float32",
        "max_shard_bytes": 10**9,
        "base_weights": "original",
        "split": "validation",
    }
    return order(directory, models, weights, "merge", **task, **fields)


def failure(job, program):
    status, emitted = run_here(job, program)
    assert status == EXIT_FAILED, emitted
    return of_type(emitted, "failure")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_peft_and_transformers(adapters, models_dir, tmp_path, kind):
    weights, (base, _) = adapters(kind), KINDS[kind]
    config = AdapterConfig.parse((weights / FILES[0]).read_bytes())
    assert read_weights(weights / FILES[1], config).tensors == len(load_file(weights / FILES[1]))
    job = evaluation(tmp_path, models_dir, weights, base=base)
    status, _ = run_here(job, "evaluate")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()
    table = pq.read_table(job / "evaluations" / "adapter-test.parquet").to_pylist()
    scored = [[row[f"probability:{label}"] for label in LABELS] for row in table]
    texts = [row["text"] for row in rows() if row["split"] == "test"]
    expected, plain = (
        probabilities(
            load_elsewhere(models_dir, adapter, base), models_dir, TEMPLATE, texts, LABELS, base
        )
        for adapter in (weights, None)
    )
    assert torch.tensor(scored).allclose(torch.tensor(expected), atol=1e-4)
    assert not torch.tensor(plain).allclose(torch.tensor(expected), atol=1e-2)  # it matters


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_is_what_peft_merges(adapters, models_dir, tmp_path, kind):
    weights, (base, _) = adapters(kind), KINDS[kind]
    job = merge(tmp_path, models_dir, weights, base=base)
    status, emitted = run_here(job, "merge")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()
    (event,) = of_type(emitted, "merged")
    assert event.comparison.labels_changed == 0
    merged = AutoModelForCausalLM.from_pretrained(job / "merged")
    expected = load_elsewhere(models_dir, weights, base).merge_and_unload()
    own = dict(merged.named_parameters())
    for name, value in expected.named_parameters():
        assert own[name].allclose(value, atol=1e-5), name
    card = (job / "merged" / "README.md").read_text()
    assert "imported into Fairtune" in card
    assert "step 0" not in card


def test_merging_by_peft_with_the_whole_model_gives_the_same(
    adapters, models_dir, tmp_path, monkeypatch
):
    from worker.merging import streamed

    weights = adapters("patterns")
    monkeypatch.setattr(streamed, "unstreamable_reason", lambda *_: "for a test")
    job = merge(tmp_path, models_dir, weights)
    status, _ = run_here(job, "merge")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()
    merged = AutoModelForCausalLM.from_pretrained(job / "merged")
    expected = load_elsewhere(models_dir, weights).merge_and_unload()
    own = dict(merged.named_parameters())
    assert all(own[n].allclose(v, atol=1e-5) for n, v in expected.named_parameters())


def test_predictions_are_those_of_peft(adapters, models_dir, tmp_path):
    texts = ["so good for us never", "help the town"]
    job = order(
        tmp_path,
        models_dir,
        adapters("dora and rslora"),
        "predict",
        template="tiny",
        positive_label="hate",
        threshold=None,
        texts=texts,
    )
    status, _ = run_here(job, "predict")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()
    scored = read_json(job / "predictions.json")["probabilities"]
    model = load_elsewhere(models_dir, adapters("dora and rslora"))
    expected = probabilities(model, models_dir, TEMPLATE, texts, LABELS)
    assert torch.tensor(scored).allclose(torch.tensor(expected), atol=1e-4)


def test_magnitudes_under_peft_s_newer_name_are_read(adapters, models_dir, tmp_path):
    job = evaluation(tmp_path, models_dir, adapters("dora and rslora"))
    path = job / "adapter" / FILES[1]
    renamed = {
        f"{name}.weight" if name.endswith("magnitude_vector") else name: value
        for name, value in load_file(path).items()
    }
    save_file(renamed, path)
    status, _ = run_here(job, "evaluate")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()


LAST = "base_model.model.model.layers.1.self_attn.q_proj"


def without_a_layer(tensors, config):
    for side in "AB":
        del tensors[f"{LAST}.lora_{side}.weight"]


def one_layer_more(tensors, config):
    for side in "AB":
        tensors[f"{LAST.replace('.1.', '.2.')}.lora_{side}.weight"] = torch.ones(
            tensors[f"{LAST}.lora_{side}.weight"].shape
        )


def wider(tensors, config):
    tensors[f"{LAST}.lora_A.weight"] = torch.ones(4, 128)


def not_a_number(tensors, config):
    tensors[f"{LAST}.lora_A.weight"][0, 0] = float("nan")


def no_such_layers(tensors, config):
    config["target_modules"] = ["query_key_value"]


def half_a_pattern(tensors, config):
    config["target_modules"] = "(q_proj"


UNFIT = {
    without_a_layer: "weights for 1 layer of tiny-llama that its adapter_config.json adapts, "
    "model.layers.1.self_attn.q_proj for one",
    one_layer_more: "tiny-llama has no place for 1 layer of the adapter, "
    "model.layers.2.self_attn.q_proj for one",
    wider: "has the shape (4, 128), but tiny-llama needs (4, 64)",
    not_a_number: "contains values that are not finite",
    no_such_layers: "cannot be added to tiny-llama",
    half_a_pattern: "cannot be added to tiny-llama",
}


@pytest.mark.parametrize("program", ["evaluate", "merge"])
@pytest.mark.parametrize("fault", UNFIT, ids=lambda fault: fault.__name__)
def test_an_adapter_of_another_model_fails_once_and_names_the_layer(
    adapters, models_dir, tmp_path, fault, program
):
    build = {"evaluate": evaluation, "merge": merge}[program]
    job = build(tmp_path, models_dir, adapters("plain"))
    tensors, config = load_file(job / "adapter" / FILES[1]), read_json(job / "adapter" / FILES[0])
    fault(tensors, config)
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, job / "adapter" / FILES[1]
    )
    (job / "adapter" / FILES[0]).write_text(json.dumps(config))
    failed = failure(job, program)
    assert failed.reason == "invalid_spec"
    assert UNFIT[fault] in failed.detail, failed.detail
