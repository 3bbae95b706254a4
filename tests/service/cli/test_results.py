"""`fairtune runs report`, `compare`, `evaluate`, `merge`, `download` and `promote`."""

import hashlib
import json

import pytest

from service.cli import pdf
from tests.service.cli.conftest import scored_run
from tests.support.fake_worker import Worker
from tests.support.installation import wait_until
from tests.support.merged_runs import MODEL, merged
from tests.support.trained_runs import finish


@pytest.fixture
def report(api):
    def read(run_id, **params):
        return api.http.get(f"/v1/runs/{run_id}/bias-report", params=params)

    return read


def test_a_report_is_printed(fairtune, finished):
    printed = fairtune("runs", "report", finished).out
    assert printed.startswith("Bias report: tiny, template hate_speech_simple")
    for part in ("Overall metrics", "False-positive rate by group", "Verdicts on caps", "lgbtq"):
        assert part in printed


def test_a_report_in_every_format(fairtune, finished, report, tmp_path):
    assert fairtune("runs", "report", finished, "--json").json == report(finished).json()
    for suffix in ("html", "csv", "json", "txt"):
        assert fairtune("runs", "report", finished, "-o", f"r.{suffix}").out == ""
    assert (tmp_path / "r.html").read_text() == report(finished, format="html").text
    assert (tmp_path / "r.csv").read_bytes() == report(finished, format="csv").content
    assert json.loads((tmp_path / "r.json").read_text()) == report(finished).json()
    assert "Verdicts on caps" in (tmp_path / "r.txt").read_text()
    table = fairtune("runs", "report", finished, "--format", "csv", "--table", "performance").out
    expected = report(finished, format="csv", table="performance").text
    assert table.splitlines() == expected.splitlines()


def test_a_pdf_is_printed_by_a_browser(fairtune, finished, tmp_path, monkeypatch):
    browser = tmp_path / "browser"
    browser.write_text(
        '#!/bin/sh\nfor a; do case "$a" in --print-to-pdf=*) echo PDF > "${a#*=}";; esac; done\n'
    )
    browser.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(browser))
    fairtune("runs", "report", finished, "-o", "r.pdf")
    assert (tmp_path / "r.pdf").read_text() == "PDF\n"
    browser.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
    assert "no display" in fairtune("runs", "report", finished, "-o", "r.pdf", status=1).err
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    assert "--format html" in fairtune("runs", "report", finished, "-o", "r.pdf", status=1).err
    monkeypatch.delenv("CHROMIUM")
    monkeypatch.setattr(pdf.shutil, "which", lambda _: None)
    assert "Ctrl-P" in fairtune("runs", "report", finished, "-o", "r.pdf", status=1).err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "pdf"),
        ("--table", "bias"),
        ("--json", "--format", "html"),
        ("--format", "xml"),
    ],
)
def test_formats_that_do_not_fit_are_usage_errors(fairtune, finished, arguments):
    fairtune("runs", "report", finished, *arguments, status=2)


def test_check_tells_whether_the_report_passes(fairtune, finished, failing):
    assert fairtune("runs", "report", finished, "--check").err == ""
    refused = fairtune("runs", "report", failing, "--check", status=8)
    assert "Verdicts on caps" in refused.out
    assert refused.err.startswith("not passed: caps: fail")
    assert len(refused.err.splitlines()) == 1


def test_no_cap_is_no_pass(api, fairtune, dataset_id):
    run = scored_run(api, dataset_id, "without caps", caps=[]).run_id
    assert "not_applicable" in fairtune("runs", "report", run, "--json", "--check", status=8).err


def test_a_run_without_a_report_says_why(fairtune, queued):
    refused = fairtune("runs", "report", queued, status=1)
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1


def test_runs_are_compared(api, fairtune, finished, failing, tmp_path):
    printed = fairtune("runs", "compare", finished, failing).out
    assert printed.startswith("test split: ")
    assert [line.split()[:2] for line in printed.splitlines()[3:5]] == [
        [finished, "pass"],
        [failing, "fail"],
    ]
    answer = api.http.get("/v1/compare", params={"runs": f"{finished},{failing}"}).json()
    assert fairtune("runs", "compare", finished, failing, "--json").json == answer
    fairtune("runs", "compare", finished, failing, "-o", "c.html")
    assert "<html" in (tmp_path / "c.html").read_text()
    assert len(fairtune("runs", "compare", finished, status=1).err.splitlines()) == 1


def job_of(api, path: str) -> dict:
    """The newest job of a run's list, once there is one in the queue."""

    def queued():
        answer = api.http.get(path)
        content = answer.json()
        entries = content.get("data", [content]) if answer.is_success else []
        return next((entry for entry in entries if entry["status"] == "queued"), None)

    return wait_until(queued)


def test_an_evaluation_is_queued_and_waited_for(api, fairtune, finished):
    evaluation = fairtune(
        *("runs", "evaluate", finished, "--split", "validation", "--max-samples", "5", "--json")
    ).json
    assert (evaluation["split"], evaluation["max_samples"]) == ("validation", 5)
    path = f"/v1/runs/{finished}/evaluations"
    assert api.http.post(f"{path}/{evaluation['id']}/cancel").is_success
    process = api.start("runs", "evaluate", finished, "--split", "validation", "--wait")
    job = job_of(api, path)
    finish(Worker(api.context, finished, job["job_id"]))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.split()[0]) == (0, job["id"]), err
    refused = fairtune("runs", "evaluate", finished, "--target", "checkpoint", status=1)
    assert refused.err.startswith("/step: ")


def test_a_merge_is_waited_for_and_downloaded(api, fairtune, dataset_id, tmp_path):
    run = scored_run(api, dataset_id, "to merge").run_id
    process = api.start("runs", "merge", run, "--dtype", "float32", "--wait")
    job = job_of(api, f"/v1/runs/{run}/merged")
    refused = fairtune("runs", "download", run, "--merged", status=1)
    assert "there is no merged model" in refused.err
    worker = Worker(api.context, run, job["job_id"])
    worker.ship(merged(worker))
    finish(worker)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.split()[0] == job["id"]
    assert "64 rows of the validation split" in out
    assert fairtune("runs", "download", run, "--merged").out == f"{run}-merged\n"
    for name, content in MODEL.items():
        assert (tmp_path / f"{run}-merged" / name).read_bytes() == content


def test_an_adapter_is_downloaded_and_resumed(api, fairtune, finished, tmp_path):
    ended = fairtune("runs", "download", finished)
    assert ended.out == f"{finished}\n"
    assert "downloaded" in ended.err
    stored = api.http.get(f"/v1/runs/{finished}/artifacts").json()["data"]
    hashes = {entry["path"]: entry["sha256"] for entry in stored}
    files = sorted((tmp_path / finished).iterdir())
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() == hashes[file.name]
    part = files[1].with_name(f"{files[1].name}.part")
    part.write_bytes(files[1].read_bytes()[:3])
    files[1].unlink()
    target = fairtune("runs", "download", finished, "-o", finished, "--json").json
    assert target == {"directory": finished}
    assert hashlib.sha256(files[1].read_bytes()).hexdigest() == hashes[files[1].name]
    assert not part.exists()


def test_a_checkpoint_is_downloaded(fairtune, finished, queued, tmp_path):
    target = fairtune("runs", "download", finished, "--checkpoint", "90").out.strip()
    assert (tmp_path / target / "optimizer.safetensors").read_bytes() == (
        b"optimizer.safetensors 90"
    )
    fairtune("runs", "download", finished, "--checkpoint", "7", status=6)
    fairtune("runs", "download", finished, "--checkpoint", "9", "--merged", status=2)
    assert len(fairtune("runs", "download", queued, status=1).err.splitlines()) == 1


def test_a_release_name_is_given_shown_and_withdrawn(fairtune, finished):
    assert fairtune("runs", "promote", finished, "cli").out == f"cli@production is {finished}\n"
    staged = fairtune("runs", "promote", finished, "cli@staging", "--json").json
    assert staged["stage"] == "staging"
    listed = fairtune("promotions", "list", "--name", "cli").out.splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["cli@staging", "cli@production"]
    assert fairtune("promotions", "list", "--stage", "staging", "--json").json == [staged]
    assert finished in fairtune("promotions", "show", "cli").out
    assert fairtune("promotions", "show", "cli@staging", "--json").json == staged
    assert "--yes" in fairtune("promotions", "withdraw", "cli", status=2).err
    assert "withdrawn" in fairtune("promotions", "withdraw", "cli", "--yes").out
    withdrawn = fairtune("promotions", "withdraw", "cli@staging", "--yes", "--json").json
    assert not withdrawn["is_current"]
    fairtune("promotions", "show", "cli", status=6)
    assert fairtune("promotions", "list", "--name", "cli").out.count("withdrawn") == 2


def test_every_hindrance_of_a_promotion_has_a_line(fairtune, failing):
    refused = fairtune("runs", "promote", failing, "cli", status=1)
    first, *reasons, last = refused.err.splitlines()
    assert "does not let this run be promoted" in first
    assert len(reasons) == 2
    assert any("lgbtq" in reason for reason in reasons)
    assert "--override REASON" in last
    overridden = fairtune("runs", "promote", failing, "forced", "--override", "a test")
    assert overridden.out == f"forced@production is {failing}\n"
    shown = fairtune("promotions", "show", "forced").out
    assert "a test" in shown
    assert shown.count("overrode") == 2
