"""API keys over HTTP, on each database: who gets in, as what, and what is kept of a key."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from fastapi.testclient import TestClient
from sqlalchemy import delete
from sqlmodel import SQLModel

from service.api.app import create_app
from service.domain.access import Role
from service.domain.errors import Conflict, RefusedToStart
from service.settings import Settings
from service.store import keys as rows
from service.store import migrate
from service.store.database import Database, db_now
from service.store.tables import ApiKey
from service.usecases import api_keys as use_cases
from tests.support.api_keys import bearer, change, let_expire, make_keys


@pytest.fixture
def tokens(context) -> dict[Role, str]:
    return make_keys(context.database)


@pytest.fixture
def public(settings):
    """A client of a server that listens on every address."""
    app = create_app(settings.model_copy(update={"host": "0.0.0.0"}))
    with TestClient(app, base_url="http://fairtune.example") as client:
        yield client


def last_used(context, name):
    with context.database.read() as session:
        return rows.find_by_name(session, name).row.last_used_at


def is_refused(answer, status, kind):
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:fairtune:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["detail"]


# -- open access ----------------------------------------------------------------------------------


def test_the_first_key_closes_the_door_at_once(client):
    assert client.get("/v1/presets").status_code == 200
    made = client.post("/v1/keys", json={"name": "me", "role": "admin"}).json()
    answer = client.get("/v1/presets")
    assert "Authorization: Bearer" in is_refused(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/v1/presets", headers=bearer(made["token"])).status_code == 200


def test_revoking_or_outliving_the_last_key_does_not_open_the_door(client, context):
    first = use_cases.create(context.database, "first", Role.ADMIN)
    use_cases.revoke(context.database, first.key.row.id)
    is_refused(client.get("/v1/presets"), 401, "unauthorized")
    second = use_cases.create(context.database, "second", Role.ADMIN, 3600)
    assert client.get("/v1/presets", headers=bearer(second.token)).status_code == 200
    let_expire(context.database, "second")
    is_refused(client.get("/v1/presets"), 401, "unauthorized")


def test_a_server_that_others_reach_is_never_open(public, context, tokens):
    is_refused(public.get("/v1/presets"), 401, "unauthorized")
    headers = bearer(tokens[Role.VIEWER])
    assert public.get("/v1/presets", headers=headers).status_code == 200
    with context.database.write() as session:
        session.execute(delete(ApiKey))
    is_refused(public.get("/v1/presets"), 401, "unauthorized")
    is_refused(public.get("/v1/presets", headers=headers), 401, "unauthorized")


def test_a_server_that_others_would_reach_needs_a_usable_key_to_start(context, settings):
    database = context.database
    public = settings.model_copy(update={"host": "0.0.0.0"})
    use_cases.check_guarded(database, settings)
    for prepare in (
        lambda: None,
        lambda: use_cases.revoke_named(
            database, use_cases.create(database, "a", Role.ADMIN).key.row.id
        ),
        lambda: (use_cases.create(database, "b", Role.ADMIN, 60), let_expire(database, "b")),
    ):
        prepare()
        with pytest.raises(RefusedToStart, match="fairtune keys create NAME --role admin"):
            use_cases.check_guarded(database, public)
    use_cases.create(database, "c", Role.VIEWER)
    for one in (settings, public):
        with structlog.testing.capture_logs() as lines:
            use_cases.check_guarded(database, one)
        assert [line["log_level"] for line in lines] == ["warning"]
        assert "no usable admin key" in lines[0]["event"]
        assert "fairtune keys create NAME --role admin" in lines[0]["remedy"]
    use_cases.create(database, "d", Role.ADMIN, 60)
    with structlog.testing.capture_logs() as lines:
        use_cases.check_guarded(database, public)
    assert lines == []


def test_the_refusal_leads_to_the_database_that_the_server_has(tmp_path):
    """And to a container that does not run because of it."""
    at = Settings(data_dir=tmp_path / "with space", host="0.0.0.0")
    elsewhere = at.model_copy(update={"database_url": "postgresql+psycopg://h/d"})
    database = Database(at.database_url)
    migrate.upgrade(database)
    for settings, option in ((at, f" --data-dir '{at.data_dir}'`"), (elsewhere, "`")):
        with pytest.raises(RefusedToStart) as refused:
            use_cases.check_guarded(database, settings)
        assert f"`fairtune keys create NAME --role admin{option}" in refused.value.detail
        assert "docker compose run --rm --no-deps api keys create" in refused.value.detail
    database.dispose()


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "role": "viewer"},
        {"name": "x", "role": "operator"},
        {"name": "x", "role": "admin", "expires_in_seconds": 3600},
    ],
)
def test_a_first_key_that_would_lock_everybody_out_is_refused(client, body):
    detail = is_refused(client.post("/v1/keys", json=body), 409, "conflict")
    assert "an admin key without an expiry first" in detail
    assert client.get("/v1/presets").status_code == 200
    first = client.post("/v1/keys", json={"name": "me", "role": "admin"}).json()
    again = client.post("/v1/keys", json=body, headers=bearer(first["token"]))
    assert again.status_code == 201


HOSTS = [
    "fairtune.example.org",
    "evil.example:8000",
    "[",
    "x@y",
    "evil.com:x",
    "",
    "a b",
    "localhost@evil.com",
    "evil.com@localhost",
    "localhost:99999",
    "localhost:",
    "localhost:8000:9",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "localhost/",
    "::1",
    "[::1",
    "\u00fc",
]


@pytest.mark.parametrize("host", HOSTS)
def test_open_access_is_for_this_machines_names_and_nothing_like_them(client, host):
    headers = [(b"Host", host.encode("latin-1"))]
    is_refused(client.get("/v1/presets", headers=headers), 400, "bad-request")


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1:65535", "[::1]:8000"])
def test_open_access_by_any_name_of_this_machine(client, host):
    assert client.get("/v1/presets", headers={"Host": host}).status_code == 200


def test_open_access_takes_one_host(client):
    twice = [("Host", "localhost"), ("Host", "localhost")]
    is_refused(client.get("/v1/presets", headers=twice), 400, "bad-request")


@pytest.mark.parametrize(
    "name", ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"]
)
def test_what_a_proxy_passes_on_is_not_from_this_machine(client, context, name):
    headers = {"Host": "localhost", name: "whatever"}
    detail = is_refused(client.get("/v1/presets", headers=headers), 400, "bad-request")
    assert "fairtune keys create" in detail
    token = use_cases.create(context.database, "me", Role.ADMIN).token
    assert client.get("/v1/presets", headers=headers | bearer(token)).status_code == 200


def test_host_and_origin_matter_only_while_access_is_open(client, context):
    elsewhere = ({"Host": "evil.example"}, {"Origin": "http://evil.example"})
    for headers in elsewhere:
        is_refused(client.get("/v1/presets", headers=headers), 400, "bad-request")
    token = use_cases.create(context.database, "me", Role.ADMIN).token
    for headers in elsewhere:
        is_refused(client.get("/v1/presets", headers=headers), 401, "unauthorized")
        assert client.get("/v1/presets", headers=headers | bearer(token)).status_code == 200


def test_pages_of_a_configured_origin_may_call_while_access_is_open(settings):
    allowed = settings.model_copy(update={"cors_origins": ["https://lab.example"]})
    with TestClient(create_app(allowed), base_url="http://127.0.0.1") as client:
        for origin, status in (("https://lab.example", 200), ("https://lab.example.org", 400)):
            answer = client.get("/v1/presets", headers={"Origin": origin})
            assert answer.status_code == status


# -- every route ----------------------------------------------------------------------------------


def test_every_route_is_closed_but_those_that_the_design_calls_open(client, tokens):
    """And the OpenAPI document says so, of each."""
    always_open = {"/healthz", "/readyz"}
    document = client.get("/openapi.json").json()
    (name, scheme), *others = document["components"]["securitySchemes"].items()
    assert not others
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    walked = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            url = path.replace("{", "").replace("}", "")
            call = f"{method.upper()} {path}"
            anybody = client.request(method, url)
            if path in always_open:
                assert anybody.status_code in (200, 503), call
                assert "security" not in operation, call
                continue
            is_refused(anybody, 401, "unauthorized")
            assert operation["security"] == [{name: []}], call
            assert {"401", "403"} <= set(operation["responses"]), call
            needed = (
                Role.ADMIN
                if path.startswith("/v1/keys")
                else Role.VIEWER
                if method == "get" or path.endswith("/evaluations/{eval_id}/reports")
                else Role.OPERATOR
            )
            for role in (Role.VIEWER, Role.OPERATOR):
                answer = client.request(method, url, headers=bearer(tokens[role]))
                if role < needed:
                    detail = is_refused(answer, 403, "forbidden")
                    assert f"role {needed}" in detail
                    assert f"role {role}" in detail
                    challenge = answer.headers["WWW-Authenticate"]
                    assert challenge == 'Bearer error="insufficient_scope"'
                else:
                    assert answer.status_code not in (401, 403), call
            walked.add(call)
    assert {"POST /v1/datasets", "GET /v1/keys", "POST /v1/runs/{run_id}/cancel"} <= walked


def test_what_is_always_open_and_what_no_route_knows(client, tokens):
    for path in ("/", "/docs", "/redoc", "/openapi.json", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200, path
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js"):
        assert client.get(f"/static-offline-docs/{asset}").status_code == 200
    for path in ("/v1/nothing", "/docs/", "/v1/keys/", "//v1/keys", "/static-offline-docs"):
        is_refused(client.get(path), 401, "unauthorized")
    for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "QUERY"):
        is_refused(client.request(method, "/v1/runs"), 401, "unauthorized")
    is_refused(client.post("/healthz"), 401, "unauthorized")


def test_a_viewer_may_not_even_try_a_run(client, tokens, dataset_id_of_an_operator):
    body = {"dataset_id": dataset_id_of_an_operator, "preset": "quick_test"}
    for url in ("/v1/runs", "/v1/runs?dry_run=true"):
        detail = is_refused(
            client.post(url, json=body, headers=bearer(tokens[Role.VIEWER])), 403, "forbidden"
        )
        assert detail == "this call needs the role operator; the key 'viewer' has the role viewer"
        answer = client.post(url, json=body, headers=bearer(tokens[Role.OPERATOR]))
        assert answer.status_code in (200, 201)


@pytest.fixture
def dataset_id_of_an_operator(client, tokens, sample):
    answer = client.post(
        "/v1/datasets", data={"name": "d"}, files=sample, headers=bearer(tokens[Role.OPERATOR])
    )
    return answer.json()["id"]


# -- tokens ---------------------------------------------------------------------------------------


def another_id(token):
    head, last, rest = token[:28], token[28], token[29:]
    return head + ("1" if last == "0" else "0") + rest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: b"",
        lambda token: b"Bearer",
        lambda token: b"Bearer  ",
        lambda token: f"Basic {token}".encode(),
        lambda token: token.encode(),
        lambda token: f"Bearer {token}x".encode(),
        lambda token: f"Bearer {token[:-1]}".encode(),
        lambda token: f"Bearer {token[:-1]}{'a' if token[-1] != 'a' else 'b'}".encode(),
        lambda token: f"Bearer {token.upper()}".encode(),
        lambda token: f"Bearer {token} {token}".encode(),
        lambda token: f"Bearer {another_id(token)}".encode(),
        lambda token: b"Bearer ft_\xc3\xa9\xff" + token.encode(),
        lambda token: b"Bearer " + "ft_٣".encode(),
        lambda token: b"Bearer ft_" + b"0" * 26 + b"_" + b"a" * 43,
        lambda token: b"Bearer ft_" + b"a" * 10_000,
    ],
)
def test_what_is_not_a_key_is_refused(client, tokens, spoil):
    header = spoil(tokens[Role.ADMIN])
    answer = client.get("/v1/presets", headers={b"Authorization": header})
    detail = is_refused(answer, 401, "unauthorized")
    assert "ft_a" not in detail  # nothing that was sent is sent back
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_challenge_tells_a_wrong_token_from_none(client, tokens):
    answer = client.get("/v1/presets", headers=bearer("ft_nothing"))
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    twice = [("Authorization", f"Bearer {tokens[role]}") for role in (Role.VIEWER, Role.ADMIN)]
    is_refused(client.get("/v1/presets", headers=twice), 401, "unauthorized")


def test_the_scheme_is_written_in_any_case(client, tokens):
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {tokens[Role.VIEWER]}"}
        assert client.get("/v1/presets", headers=headers).status_code == 200


def test_an_expired_or_revoked_key_is_refused_and_its_owner_told_which(client, context, tokens):
    headers = bearer(tokens[Role.VIEWER])
    change(context.database, "viewer", expires_at=db_now(3600))
    assert client.get("/v1/presets", headers=headers).status_code == 200

    def refusal(headers):
        return is_refused(client.get("/v1/presets", headers=headers), 401, "unauthorized")

    let_expire(context.database, "viewer")
    assert "is expired" in refusal(headers)
    use_cases.revoke_named(context.database, "viewer")
    assert "is revoked" in refusal(headers)
    # Whoever has only the id learns nothing of it.
    assert "viewer" not in refusal(bearer(tokens[Role.VIEWER][:-43] + "a" * 43))


def test_digests_are_compared_in_constant_time_for_unknown_ids_too(client, tokens, monkeypatch):
    compared = []

    def compare(ours, theirs):
        compared.append((ours, theirs))
        return ours == theirs

    monkeypatch.setattr(use_cases.hmac, "compare_digest", compare)
    token = tokens[Role.VIEWER]
    for sent, status in (
        (token, 200),
        (token[:-43] + "a" * 43, 401),
        (f"ft_{'0' * 26}_{'a' * 43}", 401),
    ):
        compared.clear()
        assert client.get("/v1/presets", headers=bearer(sent)).status_code == status
        ((ours, theirs),) = compared
        assert len(ours) == len(theirs) == 64


def test_a_token_is_kept_nowhere(client, context, tokens):
    made = client.post(
        "/v1/keys", json={"name": "n", "role": "viewer"}, headers=bearer(tokens[Role.ADMIN])
    ).json()
    assert client.get("/v1/presets", headers=bearer(made["token"])).status_code == 200
    with context.database.read() as session:
        connection = session.connection()
        held = "".join(
            repr(connection.execute(table.select()).all())
            for table in SQLModel.metadata.sorted_tables
        )
    assert made["id"] in held
    for token in (*tokens.values(), made["token"]):
        assert token[-43:] not in held


# -- making, listing, revoking --------------------------------------------------------------------


def test_a_key_is_made_listed_and_revoked(client, tokens):
    client.headers.update(bearer(tokens[Role.ADMIN]))
    body = {"name": "nightly", "role": "operator", "expires_in_seconds": 3600}
    answer = client.post("/v1/keys", json=body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    token = made.pop("token")
    assert token.startswith("ft_")
    assert (made["name"], made["role"], made["state"]) == ("nightly", "operator", "active")
    assert made["revoked_at"] is made["last_used_at"] is None
    assert made["expires_at"] > made["created_at"]

    listed = client.get("/v1/keys", params={"limit": 2}).json()
    assert listed["data"][0] == made
    assert listed["has_more"]
    rest = client.get("/v1/keys", params={"after": listed["next"]}).json()["data"]
    names = [key["name"] for key in listed["data"] + rest]
    assert names == ["nightly", "viewer", "operator", "admin"]

    assert client.get("/v1/presets", headers=bearer(token)).status_code == 200
    revoked = client.delete(f"/v1/keys/{made['id']}").json()
    assert (revoked["state"], revoked["id"]) == ("revoked", made["id"])
    assert client.delete(f"/v1/keys/{made['id']}").json() == revoked
    is_refused(client.get("/v1/presets", headers=bearer(token)), 401, "unauthorized")
    is_refused(client.delete("/v1/keys/key_nothing"), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, "/name"),
        ({"name": "", "role": "viewer"}, "/name"),
        ({"name": "  ", "role": "viewer"}, "/name"),
        ({"name": " a", "role": "viewer"}, "/name"),
        ({"name": "a\nb", "role": "viewer"}, "/name"),
        ({"name": "a\0", "role": "viewer"}, "/name"),
        ({"name": "\ud800", "role": "viewer"}, "/name"),
        ({"name": "x" * 101, "role": "viewer"}, "/name"),
        ({"name": "a", "role": "root"}, "/role"),
        ({"name": "a"}, "/role"),
        ({"name": "a", "role": "viewer", "expires_in_seconds": 0}, "/expires_in_seconds"),
        ({"name": "a", "role": "viewer", "expires_in_seconds": "1"}, "/expires_in_seconds"),
        ({"name": "a", "role": "viewer", "expires_in_seconds": True}, "/expires_in_seconds"),
        ({"name": "a", "role": "viewer", "expires_in_seconds": 10**12}, "/expires_in_seconds"),
        ({"name": "a", "role": "viewer", "expires": "90d"}, "/expires"),
    ],
)
def test_a_key_that_cannot_be_made_is_refused_by_its_field(client, body, pointer):
    answer = client.post(
        "/v1/keys", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    is_refused(answer, 422, "invalid-request")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_name_is_given_once_and_for_all(context, tokens):
    """Runs and events name who acted by it."""
    database = context.database

    def make(_):
        with contextlib.suppress(Conflict):
            return use_cases.create(database, "ci", Role.OPERATOR)
        return None

    with ThreadPoolExecutor(4) as pool:
        made = [key for key in pool.map(make, range(4)) if key]
    assert len(made) == 1
    let_expire(database, "ci")
    with pytest.raises(Conflict, match=r"\(expired\) has the name 'ci'.* such as 'ci-2'"):
        use_cases.create(database, "ci", Role.OPERATOR)
    use_cases.revoke_named(database, "ci")
    with pytest.raises(Conflict, match=r"\(revoked\)"):
        use_cases.create(database, "ci", Role.OPERATOR)


def test_the_first_key_is_made_once_however_many_ask(context):
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: use_cases.migrate_with_first(context.database), range(4)))
    (first,) = (key for key in made if key)
    assert (first.key.row.name, first.key.row.role) == ("first-admin", "admin")
    use_cases.revoke(context.database, first.key.row.id)
    assert use_cases.migrate_with_first(context.database) is None


# -- last use -------------------------------------------------------------------------------------


def test_the_last_use_is_kept_and_written_once_a_minute(client, context, settings, tokens):
    headers = bearer(tokens[Role.VIEWER])
    assert last_used(context, "viewer") is None
    client.get("/v1/presets", headers=headers)
    first = last_used(context, "viewer")
    assert first is not None

    def by_another_process():
        with TestClient(create_app(settings), base_url="http://127.0.0.1") as other:
            assert other.get("/v1/presets", headers=headers).status_code == 200
        return last_used(context, "viewer")

    assert by_another_process() == first
    change(context.database, "viewer", last_used_at=db_now(-61))
    client.get("/v1/presets", headers=headers)  # this process wrote it less than a minute ago
    assert last_used(context, "viewer") < first
    assert by_another_process() >= first
    assert last_used(context, "admin") is None
