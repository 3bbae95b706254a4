"""What `make demo` does, on a tiny model instead of the bundled one."""

import contextlib
import re

import pytest

from service.cli import demo
from service.domain.access import Role
from service.settings import Settings
from service.store import keys as rows
from service.store import migrate
from service.store.database import Database
from service.usecases import api_keys


@pytest.mark.extended
def test_the_demo_goes_from_upload_to_report_and_reuses_its_dataset(
    tmp_path, tiny_models_dir, monkeypatch, capsys
):
    settings = Settings(data_dir=tmp_path / "with space", models_dir=tiny_models_dir)
    shorter = demo.RUN["training"] | {"num_train_epochs": 0.2}
    monkeypatch.setattr(demo, "RUN", demo.RUN | {"base_model": "tiny-llama", "training": shorter})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with contextlib.redirect_stderr(None):
        assert demo.run(settings) == 0
    shown = capsys.readouterr().out
    assert "360 rows for training, 120 for validation" in shown.replace("\n", " ").replace(
        "  ", " "
    )
    for expected in ("Overall", "always hate", "False-positive rate", "False-negative rate"):
        assert expected in shown
    for group in ("lgbtq", "mexican", "middle_east"):
        assert re.search(rf"{group} +FPR under", shown)
    folder = re.search(r"are in\n +(.+)\n", shown)
    assert folder is not None
    assert "with space" in folder[1]
    assert "adapter_model.safetensors" in [
        path.name for path in type(tmp_path)(folder[1].strip()).iterdir()
    ]
    with demo.service(settings) as client:
        assert len(client.get("/v1/datasets").json()["data"]) == 1
        demo.upload_sample(client)
        assert len(client.get("/v1/datasets").json()["data"]) == 1
        assert client.get("/v1/runs").json()["data"][0]["status"] == "succeeded"


@pytest.mark.extended
def test_the_demo_lets_itself_in_where_keys_are_asked_for_and_leaves_none(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRTUNE_HOST", "0.0.0.0")
    settings = Settings(data_dir=tmp_path)
    database = Database(settings.database_url)
    migrate.upgrade(database)
    api_keys.create(database, "somebody", Role.ADMIN)
    with demo.service(settings) as client:
        assert demo.upload_sample(client)["name"] == "sample"
        assert client.base_url.host == "127.0.0.1"
    with database.read() as session:
        found, _ = rows.page(session, limit=None, after=None)
    own = found[0]
    assert own.row.name.startswith("demo ")
    assert own.state == "revoked"
    database.dispose()
