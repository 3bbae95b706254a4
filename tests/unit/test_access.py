"""Roles, loopback, and which role a call needs."""

import itertools

import pytest
import typer

from service.api.middleware.auth import needed_role
from service.cli.keys import parse_duration
from service.domain.access import OPEN, Role, is_loopback


def test_roles_compare_by_rank_and_not_by_the_alphabet():
    ranked = [Role.VIEWER, Role.OPERATOR, Role.ADMIN]
    assert sorted([Role.ADMIN, Role.VIEWER, Role.OPERATOR]) == ranked
    for lower, higher in itertools.combinations(ranked, 2):
        assert lower < higher
        assert lower <= higher
        assert higher > lower
        assert higher >= lower
        assert not lower > higher
        assert not lower >= higher
    assert Role.ADMIN <= Role.ADMIN >= Role.ADMIN
    assert {Role.ADMIN: 1}["admin"] == 1
    assert OPEN.role is Role.ADMIN


@pytest.mark.parametrize(
    ("host", "only_this_machine"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_counts_as_loopback(host, only_this_machine):
    assert is_loopback(host) is only_this_machine


@pytest.mark.parametrize(
    ("call", "role"),
    [
        ("GET /", None),
        ("HEAD /healthz", None),
        ("GET /static-offline-docs/swagger-ui.css", None),
        ("POST /healthz", Role.OPERATOR),
        ("GET /static-offline-docs", Role.VIEWER),
        ("GET /v1/runs", Role.VIEWER),
        ("HEAD /v1/runs", Role.VIEWER),
        ("GET /nothing/here", Role.VIEWER),
        ("POST /v1/runs", Role.OPERATOR),
        ("POST /v1/runs/run_1/evaluations/eval_1/reports", Role.VIEWER),
        ("PUT /v1/runs/run_1/evaluations/eval_1/reports", Role.OPERATOR),
        ("POST /v1/runs/run_1/evaluations/eval_1/reports/", Role.OPERATOR),
        ("POST /v1/runs/run_1/evaluations", Role.OPERATOR),
        ("PATCH /v1/runs", Role.OPERATOR),
        ("DELETE /v1/runs/run_1", Role.OPERATOR),
        ("GET /v1/keys", Role.ADMIN),
        ("POST /v1/keys/", Role.ADMIN),
        ("DELETE /v1/keys/key_1", Role.ADMIN),
    ],
)
def test_what_a_call_needs(call, role):
    assert needed_role(*call.split(" ")) is role


@pytest.mark.parametrize(
    ("text", "seconds"), [("12h", 43_200), ("90d", 7_776_000), ("4w", 2_419_200)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "-1d", "1.5d", "3y", "90 d", "٣d", "9" * 40])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(typer.BadParameter, match="90d"):
        parse_duration(text)
