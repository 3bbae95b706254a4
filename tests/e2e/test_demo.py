"""What `make demo` does, on a tiny model instead of the bundled one."""

import contextlib
import re

from service import demo
from service.settings import Settings


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
    assert "360 rows to train on, 120 to validate" in shown.replace("\n", " ").replace("  ", " ")
    for expected in ("Overall", "always hate", "False-positive rate", "False-negative rate"):
        assert expected in shown
    for group in ("lgbtq", "mexican", "middle_east"):
        assert re.search(rf"{group} +FPR under", shown)
    folder = re.search(r"lie in\n +(.+)\n", shown)
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
