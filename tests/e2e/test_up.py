"""`fairtune up` and the installed wheel."""

import contextlib
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import psutil
import pytest

from service.cli.temporary_server import free_port
from service.domain.access import Role
from service.store.database import Database
from service.usecases import api_keys
from tests.support.installation import Service, wait_until

ROOT = Path(__file__).parents[2]


def start_up(tmp_path, port) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli.main", "up", "--port", str(port)],
        env=os.environ | {"FAIRTUNE_DATA_DIR": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def is_ready(port) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    return False


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGTERM,
        *(
            pytest.param(sent, marks=pytest.mark.extended)
            for sent in (signal.SIGINT, signal.SIGKILL)
        ),
    ],
)
def test_up_serves_says_where_and_leaves_nothing_running(tmp_path, how):
    port = free_port()
    up = start_up(tmp_path, port)
    wait_until(lambda: is_ready(port))
    assert up.stdout is not None
    assert f"http://127.0.0.1:{port}/docs" in up.stdout.readline()
    docs = httpx.get(f"http://127.0.0.1:{port}/docs", trust_env=False).text
    assert "swagger" in docs.lower()
    assert "cdn" not in docs.lower()  # works with no network
    children = psutil.Process(up.pid).children(recursive=True)
    assert len(children) == 2
    up.send_signal(how)
    assert up.wait(timeout=30) == (-9 if how == signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    up.stdout.close()


def test_up_starts_a_killed_process_again(tmp_path):
    port = free_port()
    up = start_up(tmp_path, port)
    assert up.stdout is not None
    try:
        # Until it says so, a process that ends is one that did not start.
        assert "Fairtune is up" in up.stdout.readline()
        before = {child.pid: child for child in psutil.Process(up.pid).children()}
        for child in before.values():
            child.kill()

        def are_new() -> bool:
            pids = {child.pid for child in psutil.Process(up.pid).children()}
            return len(pids) == 2 and not pids & set(before)

        wait_until(are_new, 120)
        wait_until(lambda: is_ready(port), 120)
    finally:
        up.terminate()
        output, _ = up.communicate(timeout=60)
    assert up.returncode == 0
    assert "The api ended unexpectedly; it starts again in" in output
    assert "The worker ended unexpectedly; it starts again in" in output


def test_up_on_a_taken_port_says_so(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = start_up(tmp_path, taken.getsockname()[1])
        output, _ = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "--port" in output


@pytest.mark.extended
@pytest.mark.parametrize("command", ["up", "api"])
def test_listening_for_everyone_takes_a_key(command, make_settings, tmp_path):
    settings = make_settings(servers=False)
    database = Database(settings.database_url)
    revoked = api_keys.create(database, "gone", Role.ADMIN)
    api_keys.revoke(database, revoked.key.row.id)
    refused = subprocess.run(
        [sys.executable, "-m", "service.cli.main", command, "--host", "0.0.0.0"],
        env=os.environ | settings.variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 2, refused.stderr
    assert "fairtune keys create NAME --role admin" in refused.stderr

    token = api_keys.create(database, "me", Role.VIEWER).token
    database.dispose()
    served = Service(settings, tmp_path / "service.log")
    try:
        served.start(command, "--host", "0.0.0.0")
        served.ready()
        assert served.client.get("/v1/runs").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert served.client.get("/v1/runs", headers=headers).status_code == 200
        assert served.client.post("/v1/runs", headers=headers, json={}).status_code == 403
    finally:
        served.stop()


@pytest.mark.extended
def test_a_wheel_carries_what_the_service_needs(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("fairtune-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert not (installed / "tests").exists()
    code = (
        "import service, worker, migrations, pathlib\n"
        "from service.presets import presets\n"
        "from service.datasets.templates import builtin_templates\n"
        f"assert pathlib.Path(service.__file__).is_relative_to({str(installed)!r})\n"
        f"assert pathlib.Path(migrations.__file__).is_relative_to({str(installed)!r})\n"
        "print(len(presets()), len(builtin_templates()))\n"
        "from service.cli.main import app; app(['migrate'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(installed), "FAIRTUNE_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[0] == "5 3"
    assert (tmp_path / "data" / "fairtune.db").exists()
