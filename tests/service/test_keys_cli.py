"""`fairtune keys` and `fairtune migrate --first-key`, on each database."""

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.domain.access import Role
from service.store.database import Database
from service.usecases import api_keys as use_cases


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


@pytest.fixture
def first(database):
    """An admin's key, as others are made only after one."""
    return use_cases.create(database, "first", Role.ADMIN)


def test_the_token_alone_goes_to_standard_output(fairtune, database, first):
    made = fairtune("keys", "create", "laptop", "--role", "operator", "--expires", "90d")
    assert made.exit_code == 0, made.output
    token = made.stdout.removesuffix("\n")
    assert "\n" not in token
    assert "shown only once" in made.stderr
    assert token not in made.stderr
    found = caller(database, token)
    assert (found.name, found.role) == ("laptop", Role.OPERATOR)
    assert found.key_id in made.stderr


def test_keys_are_listed_and_revoked_by_id_or_name(fairtune, database, first):
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
        ["first", "admin", "active"],
    ]
    for _ in range(2):  # again is no error
        assert fairtune("keys", "revoke", three.key_id).exit_code == 0
        assert "one" in fairtune("keys", "revoke", "one").stdout
    states = [line.split()[3] for line in fairtune("keys", "list").stdout.splitlines()[1:]]
    assert states == ["revoked", "active", "revoked", "active"]


def test_a_key_that_is_not_there_is_named(fairtune):
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
        (("a\x1b[2J", "--role", "viewer"), 1, "unprintable"),
        (("x" * 101, "--role", "viewer"), 1, "100"),
        (("taken", "--role", "viewer"), 1, "choose another name, such as 'taken-2'"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_remedy(
    fairtune, database, arguments, status, said
):
    use_cases.create(database, "taken", Role.ADMIN)
    refused = fairtune("keys", "create", *arguments)
    assert refused.exit_code == status, refused.output
    assert said in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("options", [("viewer",), ("operator",), ("admin", "--expires", "90d")])
def test_the_first_key_is_an_admins_and_stays(fairtune, options):
    refused = fairtune("keys", "create", "a", "--role", *options)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "create an admin key without an expiry first" in refused.stderr
    assert fairtune("keys", "create", "b", "--role", "admin").exit_code == 0
    assert fairtune("keys", "create", "a", "--role", *options).exit_code == 0


KEYS = [("create", "a", "--role", "admin"), ("list",), ("revoke", "a")]


@pytest.mark.parametrize("command", KEYS)
def test_where_there_is_no_database_none_is_made(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at = tmp_path / "not there"
    refused = CliRunner().invoke(app, ("keys", *command, "--data-dir", str(at)))
    assert refused.exit_code == 1
    assert f"no database at {at}/fairtune.db. If the service has one elsewhere, set --data-dir" in (
        refused.stderr
    )
    assert f"run: fairtune migrate --data-dir '{at}'" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(app, ("migrate", "--data-dir", str(at))).exit_code == 0
    assert CliRunner().invoke(app, ("keys", "list", "--data-dir", str(at))).exit_code == 0


@pytest.mark.parametrize("command", KEYS)
def test_a_database_without_the_schema_is_named(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.db").touch()
    monkeypatch.setenv("FAIRTUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'new.db'}")
    refused = CliRunner().invoke(app, ("keys", *command))
    assert refused.exit_code == 1
    assert refused.stderr.endswith("run: fairtune migrate\n")


def test_a_database_that_is_away_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRTUNE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    refused = CliRunner().invoke(app, ("keys", "list"))
    assert refused.exit_code == 1
    assert "cannot be reached" in refused.stderr


def test_migrate_makes_the_first_key_once(fairtune, database, tmp_path):
    plain = fairtune("migrate")
    assert (plain.exit_code, "ft_" in plain.output) == (0, False)
    file = tmp_path / "keys" / "first"
    first = fairtune("migrate", "--first-key", "--first-key-file", str(file))
    assert first.exit_code == 0, first.output
    assert "ft_" not in first.output  # a container's log would keep it
    assert str(file) in first.output
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    token = file.read_text().strip()
    assert caller(database, token).role is Role.ADMIN
    use_cases.revoke_named(database, "first-admin")
    file.unlink()
    again = fairtune("migrate", "--first-key")
    assert again.exit_code == 0
    assert "ft_" not in again.output
    assert "API keys already" in again.output


def test_a_first_key_is_shown_if_its_file_cannot_be_written(fairtune, database, tmp_path):
    file = tmp_path / "taken"
    file.write_text("mine")
    first = fairtune("migrate", "--first-key", "--first-key-file", str(file))
    assert first.exit_code == 0, first.output
    (token,) = (line for line in first.stdout.splitlines() if line.startswith("ft_"))
    assert caller(database, token).role is Role.ADMIN
    assert file.read_text() == "mine"


def test_the_data_directory_is_private(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at = tmp_path / "data"
    assert CliRunner().invoke(app, ("migrate", "--data-dir", str(at))).exit_code == 0
    assert at.stat().st_mode & 0o777 == 0o700
