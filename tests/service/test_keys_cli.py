"""`fairtune keys` and `fairtune migrate --first-key`, on each database."""

import pytest
from api_keys import let_expire
from typer.testing import CliRunner

from service import keys as use_cases
from service.cli import app
from service.domain.access import Role
from service.store.database import Database


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def fairtune(database_url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from anybody's .env
    monkeypatch.setenv("FAIRTUNE_DATABASE_URL", database_url)

    def run(*arguments):
        return CliRunner().invoke(app, arguments)

    return run


def caller(database, token):
    return use_cases.authenticate(database, token, host="0.0.0.0")


def test_the_token_alone_goes_to_standard_output(fairtune, database):
    made = fairtune("keys", "create", "laptop", "--role", "operator", "--expires", "90d")
    assert made.exit_code == 0, made.output
    token = made.stdout.removesuffix("\n")
    assert "\n" not in token
    assert "shown this once" in made.stderr
    assert token not in made.stderr
    found = caller(database, token)
    assert (found.name, found.role) == ("laptop", Role.OPERATOR)
    assert found.key_id in made.stderr


def test_keys_are_listed_and_revoked_by_id_or_name(fairtune, database):
    for name, role in (("one", "viewer"), ("two", "admin")):
        assert fairtune("keys", "create", name, "--role", role).exit_code == 0
    token = fairtune("keys", "create", "three", "--role", "viewer").stdout.strip()
    three = caller(database, token)
    listed = fairtune("keys", "list").stdout.splitlines()
    assert listed[0].split()[:4] == ["ID", "NAME", "ROLE", "STATE"]
    assert [line.split()[1:4] for line in listed[1:]] == [
        ["three", "viewer", "active"],
        ["two", "admin", "active"],
        ["one", "viewer", "active"],
    ]
    for _ in range(2):  # again is no error
        assert fairtune("keys", "revoke", three.key_id).exit_code == 0
        assert "one" in fairtune("keys", "revoke", "one").stdout
    states = [line.split()[3] for line in fairtune("keys", "list").stdout.splitlines()[1:]]
    assert states == ["revoked", "active", "revoked"]


def test_a_name_that_two_standing_keys_have_is_not_enough(fairtune, database):
    first = use_cases.create(database, "ci", Role.VIEWER, 60).key.row.id
    let_expire(database, "ci")
    second = use_cases.create(database, "ci", Role.VIEWER).key.row.id
    refused = fairtune("keys", "revoke", "ci")
    assert refused.exit_code == 1
    assert first in refused.stderr
    assert second in refused.stderr
    assert fairtune("keys", "revoke", first).exit_code == 0
    assert second in fairtune("keys", "revoke", "ci").stdout
    unknown = fairtune("keys", "revoke", "nobody")
    assert (unknown.exit_code, "fairtune keys list" in unknown.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("laptop",), 2, "--role"),
        (("laptop", "--role", "root"), 2, "operator"),
        (("laptop", "--role", "viewer", "--expires", "soon"), 2, "90d"),
        (("laptop", "--role", "viewer", "--expires", "99999d"), 1, "3650 days"),
        ((" ", "--role", "viewer"), 1, "blank"),
        (("a\x1b[2J", "--role", "viewer"), 1, "nobody can read"),
        (("x" * 101, "--role", "viewer"), 1, "100"),
        (("taken", "--role", "viewer"), 1, "revoke it first"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_remedy(
    fairtune, database, arguments, status, said
):
    use_cases.create(database, "taken", Role.VIEWER)
    refused = fairtune("keys", "create", *arguments)
    assert refused.exit_code == status, refused.output
    assert said in refused.stderr
    assert refused.stdout == ""


def test_a_database_without_the_schema_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRTUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'new.db'}")
    for command in (("create", "a", "--role", "admin"), ("list",), ("revoke", "a")):
        refused = CliRunner().invoke(app, ("keys", *command))
        assert refused.exit_code == 1
        assert "fairtune migrate" in refused.stderr


def test_a_database_that_is_away_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRTUNE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    refused = CliRunner().invoke(app, ("keys", "list"))
    assert refused.exit_code == 1
    assert "cannot be reached" in refused.stderr


def test_migrate_makes_the_first_key_once(fairtune, database):
    plain = fairtune("migrate")
    assert (plain.exit_code, "ft_" in plain.output) == (0, False)
    first = fairtune("migrate", "--first-key")
    assert first.exit_code == 0, first.output
    (token,) = (line for line in first.stdout.splitlines() if line.startswith("ft_"))
    assert caller(database, token).role is Role.ADMIN
    use_cases.revoke_named(database, "first-admin")
    again = fairtune("migrate", "--first-key")
    assert again.exit_code == 0
    assert "ft_" not in again.output
    assert "API keys already" in again.output
