"""The harness itself: the places that it holds processes at are there, its proxy does its word."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.faults.gates import Gates
from tests.faults.matrix import CASES, ESSENTIAL
from tests.faults.proxy import Proxy
from tests.support.installation import wait_until

MODULES = """
import importlib, sys, sitecustomize
for module in sitecustomize.WRAPS:
    importlib.import_module(module)
"""


def test_every_place_of_a_gate_is_there(tmp_path: Path) -> None:
    variables = os.environ | Gates(tmp_path / "gates").variables | {"PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", MODULES], env=variables, check=True)


def test_a_place_that_is_gone_is_a_loud_error(tmp_path: Path) -> None:
    gone = "import sitecustomize as s; s.WRAPS = {'json': [('no_such', print)]}; import json.tool"
    variables = os.environ | Gates(tmp_path / "gates").variables
    code = f"import sys; sys.modules.pop('json', None); {gone}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert "AttributeError" in done.stderr
    assert "no_such" in done.stderr


def test_a_gate_holds_the_first_that_comes_by_and_no_other(tmp_path: Path) -> None:
    gates = Gates(tmp_path / "gates")
    gate = gates.arm("here", step=2)
    code = "from sitecustomize import reach; reach('here', step=1); reach('here', step=2)"
    variables = os.environ | gates.variables
    first = subprocess.Popen([sys.executable, "-c", code], env=variables)
    assert gate.reached() == first.pid
    assert first.poll() is None
    subprocess.run([sys.executable, "-c", code], env=variables, check=True, timeout=30)
    gate.open()
    assert first.wait(timeout=30) == 0


def test_a_clock_can_be_ahead(tmp_path: Path) -> None:
    code = "import time; print(time.time())"
    variables = os.environ | Gates(tmp_path / "gates").variables
    now, ahead = (
        float(
            subprocess.run(
                [sys.executable, "-c", code],
                env=variables | {"SKEW_SECONDS": str(skew)},
                capture_output=True,
                check=True,
            ).stdout
        )
        for skew in (0, 60)
    )
    assert 60 <= ahead - now < 90


@pytest.fixture
def echo():
    """A server that answers each connection with what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=_echo, args=[client], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def _echo(client: socket.socket) -> None:
    with client:
        while data := client.recv(100):
            client.sendall(data)


def _ask(connection: socket.socket) -> bytes:
    connection.settimeout(0.3)
    connection.sendall(b"hello")
    return connection.recv(100)


def test_a_proxy_forwards_stalls_slows_down_cuts_and_restores(echo) -> None:
    proxy = Proxy(lambda: socket.create_connection(echo))
    where = ("127.0.0.1", proxy.port)
    with socket.create_connection(where) as connection:
        assert _ask(connection) == b"hello"
        proxy.stall()
        with pytest.raises(TimeoutError):
            _ask(connection)
        with socket.create_connection(where) as late, pytest.raises(TimeoutError):
            _ask(late)
        proxy.restore()
        assert connection.recv(100) == b"hello"
        proxy.slow(5 / 0.4)  # it takes longer than is waited for
        with pytest.raises(TimeoutError):
            _ask(connection)
        proxy.restore()
        assert connection.recv(100) == b"hello"
        proxy.cut()
        assert connection.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)
    proxy.restore()
    with socket.create_connection(where) as connection:
        assert _ask(connection) == b"hello"
    proxy.close()
    wait_until(lambda: not proxy.connections, 5)


def test_every_essential_case_is_one_of_the_quick_ones() -> None:
    quick = {f"{case.id}-{case.quick}" for case in CASES if case.quick}
    assert quick >= ESSENTIAL
    assert len(ESSENTIAL) == 8
