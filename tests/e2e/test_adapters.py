"""An adapter trained elsewhere by peft: imported, scored, merged, reported by real processes."""

import io
import json
import shutil
import tarfile

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, save_file
from transformers import AutoModelForCausalLM

from service.cli.main import app
from service.datasets.templates import builtin_templates
from tests.support.foreign_adapters import load_elsewhere, probabilities, train_elsewhere
from tests.support.installation import wait_until
from tests.support.tiny_runs import sample

pytestmark = pytest.mark.extended
TEMPLATE = builtin_templates()["hate_speech_simple"]
LABELS = ["hate", "normal"]


@pytest.fixture(scope="module")
def weights(tiny_models_dir, tmp_path_factory):
    target = tmp_path_factory.mktemp("elsewhere")
    return train_elsewhere(tiny_models_dir, target, TEMPLATE, use_dora=True, use_rslora=True)


def packed(directory) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(directory, "adapter")
    return file.getvalue()


def imported(service, content: bytes, **options) -> dict:
    """Import an adapter; the base model of its configuration is a path of the tests' machine."""
    options = {
        "base_model": "tiny-llama",
        "quantization": {"load_in_4bit": False},
        "training": {"bf16": False, "max_seq_length": 256},
        "fairness": {"caps": [{"group": "lgbtq", "max": 0.4}]},
    } | options
    answer = service.client.post(
        "/v1/adapters", files={"file": content}, data={"options": json.dumps(options)}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def ended(service, url) -> dict:
    def done() -> dict | None:
        job = service.client.get(url).json()
        return job if job["status"] in ("succeeded", "failed") else None

    return wait_until(done)


def evaluated(service, run, **body) -> tuple[dict, list[dict]]:
    made = service.client.post(f"{run}/evaluations", json=body)
    assert made.status_code == 201, made.text
    url = f"{run}/evaluations/{made.json()['id']}"
    evaluation = ended(service, url)
    assert evaluation["status"] == "succeeded", evaluation["failure"]
    table = pq.read_table(io.BytesIO(service.client.get(f"{url}/predictions").content))
    return evaluation, table.to_pylist()


def test_from_import_to_merged_model(service, weights, tiny_models_dir):
    get, post = service.client.get, service.client.post
    dataset_id = service.upload({"test": sample()["test"]})
    view = imported(service, packed(weights))
    run = f"/v1/runs/{view['id']}"
    assert (view["peft"]["use_dora"], view["peft"]["use_rslora"]) == (True, True)
    assert [warning["code"] for warning in view["warnings"]] == ["other_base_model"]

    texts = [json.loads(line)["text"] for line in sample()["test"].splitlines()]
    scored = {}
    for target, adapter in (("adapter", weights), ("base", None)):
        evaluation, table = evaluated(service, run, target=target, dataset_id=dataset_id)
        model = load_elsewhere(tiny_models_dir, adapter)
        expected = probabilities(model, tiny_models_dir, TEMPLATE, texts, LABELS)
        ours = [[row[f"probability:{label}"] for label in LABELS] for row in table]
        assert torch.tensor(ours).allclose(torch.tensor(expected), atol=1e-4)
        scored[target] = (evaluation["id"], expected)
    _, table = evaluated(service, run, dataset_id=dataset_id, max_samples=7)
    assert len(table) == 7

    evaluation_id, expected = scored["adapter"]
    body = {"base_evaluation": scored["base"][0]}
    report = post(f"{run}/evaluations/{evaluation_id}/reports", json=body).json()
    assert report["meta"]["exploratory"]
    assert report["overall"]["base"]["f1"]["value"] is not None
    assert report["data"]["seen_in_training"] is None
    assert report["unseen"] is None
    codes = [warning["code"] for warning in report["warnings"]]
    assert codes[:2] == ["exploratory", "training_rows_unknown"]
    page = post(f"{run}/evaluations/{evaluation_id}/reports?format=html", json=body).text
    assert "it is unknown on which rows it was trained" in page
    assert get(f"{run}/bias-report").status_code == 409
    compared = get("/v1/compare", params={"runs": f"{view['id']},{view['id']}@0", "split": "test"})
    assert compared.status_code == 200, compared.text
    codes = [warning["code"] for warning in compared.json()["warnings"]]
    assert codes.count("training_rows_unknown") == 2

    made = post(f"{run}/predictions", json={"texts": texts[:3]}).json()
    prediction = ended(service, f"{run}/predictions/{made['id']}")
    ours = [row["score"] for row in prediction["predictions"]]
    assert ours == pytest.approx([row[0] for row in expected[:3]], abs=1e-4)

    assert post(f"{run}/merged", json={"dtype": "float32"}).status_code == 201
    merge = ended(service, f"{run}/merged")
    assert merge["status"] == "succeeded", merge["failure"]
    assert merge["comparison"]["rows"] == 64
    assert merge["comparison"]["labels_changed"] == 0
    name = f"merged/{merge['id']}/model.safetensors"
    ours = load(get(f"{run}/artifacts/{name}").content)
    theirs = load_elsewhere(tiny_models_dir, weights).merge_and_unload()
    plain = AutoModelForCausalLM.from_pretrained(tiny_models_dir / "tiny-llama")
    before = dict(plain.named_parameters())
    changed = 0
    for name, value in theirs.named_parameters():
        if name in ours:
            assert ours[name].allclose(value, atol=1e-5), name
            changed += not value.equal(before[name])
    assert changed == 4
    _, table = evaluated(service, run, target="merged", dataset_id=dataset_id)
    merged = [[row[f"probability:{label}"] for label in LABELS] for row in table]
    assert torch.tensor(merged).allclose(torch.tensor(expected), atol=1e-4)

    assert service.client.delete(f"/v1/adapters/{view['id']}").status_code == 204
    assert get(run).status_code == 404


def test_an_adapter_of_a_deeper_model_fails_once(service, weights, tmp_path):
    deeper = tmp_path / "deeper"
    shutil.copytree(weights, deeper)
    tensors = {
        name.replace("layers.1.", "layers.7."): tensor
        for name, tensor in load((weights / "adapter_model.safetensors").read_bytes()).items()
    }
    save_file(tensors, deeper / "adapter_model.safetensors")
    dataset_id = service.upload({"test": sample()["test"]})
    view = imported(service, packed(deeper))
    run = f"/v1/runs/{view['id']}"
    made = service.client.post(f"{run}/evaluations", json={"dataset_id": dataset_id}).json()
    evaluation = ended(service, f"{run}/evaluations/{made['id']}")
    failure = evaluation["failure"]
    assert (failure["reason"], evaluation["attempts"]) == ("invalid_spec", 1)
    assert "tiny-llama has no place for 2 layers of the adapter" in failure["detail"]
    assert "model.layers.7.self_attn.q_proj" in failure["detail"]


@pytest.mark.parametrize("service", ["files"], indirect=True)
def test_export_and_garbage_collection_know_it(service, weights, tmp_path):
    from typer.testing import CliRunner

    view = imported(service, packed(weights))
    environment = service.settings.variables
    exported = CliRunner().invoke(
        app, ["export", view["id"], "--to", str(tmp_path / "out")], env=environment
    )
    assert exported.exit_code == 0, exported.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".gitattributes",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    collected = CliRunner().invoke(app, ["gc", "--older-than", "1h"], env=environment)
    assert collected.exit_code == 0, collected.output
    stored = service.client.get(f"/v1/runs/{view['id']}/artifacts/adapter_model.safetensors")
    assert stored.content == (weights / "adapter_model.safetensors").read_bytes()
