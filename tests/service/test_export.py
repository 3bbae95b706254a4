"""fairtune export: a run's result as a model hub takes it, on each database."""

from typer.testing import CliRunner

from service.cli.main import app


def test_a_run_is_exported_as_a_model_hub_takes_it(client, context, run_id, worker, tmp_path):
    files = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": b"weights",
        "README.md": b"# Card\n",
        "bias_report.json": b"{}",
        "bias_report.html": b"quotes",
        "training.log": b"/home/me",
        "evaluations/test.parquet": b"P",
        "tensorboard/events": b"T",
    }
    run = ["export", run_id, "--to", str(tmp_path / "out" / "hub")]
    environment = context.settings.variables
    early = CliRunner().invoke(app, run, env=environment)
    assert (early.exit_code, "has no README.md" in early.stderr) == (1, True)
    for name, content in files.items():
        worker.ship(worker.line(type="artifact", file=worker.file(name, content)))
    answer = CliRunner().invoke(app, run, env=environment)
    assert answer.exit_code == 0, answer.output
    target = tmp_path / "out" / "hub"
    there = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    left_out = {"bias_report.html", "training.log", "evaluations/test.parquet"}
    assert there == set(files) - left_out | {".gitattributes"}
    for name in there - {".gitattributes"}:
        assert (target / name).read_bytes() == files[name]
    assert "filter=lfs" in (target / ".gitattributes").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hub"]
    again = CliRunner().invoke(app, run, env=environment)
    assert (again.exit_code, "not empty" in again.stderr) == (1, True)


def test_a_damaged_file_is_not_exported(context, run_id, worker, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        worker.ship(worker.line(type="artifact", file=worker.file(name, b"x")))
    worker.file("adapter_model.safetensors", b"y")
    run = ["export", run_id, "--to", str(tmp_path / "out" / "hub")]
    answer = CliRunner().invoke(app, run, env=context.settings.variables)
    assert (answer.exit_code, "adapter_model.safetensors" in answer.stderr) == (1, True)
    assert list((tmp_path / "out").iterdir()) == []
