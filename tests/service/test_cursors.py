"""A cursor that is none of the list's is refused; every list takes its own."""

import random
import string

import pytest

from service.domain.ids import is_id, new_id

LISTS = {
    "/v1/runs": "run",
    "/v1/datasets": "ds",
    "/v1/adapters": "run",
    "/v1/promotions": "promo",
    "/v1/keys": "key",
    "/v1/runs/{run_id}/evaluations": "eval",
    "/v1/runs/{run_id}/predictions": "pred",
}
REFUSED = ["", " ", "zzz", "RUN_01", "run_", "run_01", "eval_", "null", "0", "-1", "next"]


def refused(client, url, cursor):
    answer = client.get(url, params={"after": cursor, "limit": 1})
    if answer.status_code != 422:
        return False
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/query/after"
    assert "`next` from the previous page" in error["detail"]
    return True


@pytest.mark.parametrize("path", LISTS)
def test_what_cannot_be_a_cursor_of_a_list_is_refused_by_name(client, run_id, path):
    url, prefix = path.format(run_id=run_id), LISTS[path]
    own = new_id(prefix)
    foreign = [new_id(other) for other in LISTS.values() if other != prefix]
    spelt = [own.upper(), own[:-1], own + "0", f" {own}", f"{own} ", own.replace("_", "-")]
    shuffled = random.Random(16)
    alphabet = string.ascii_letters + string.digits + "_-%/ é\u202e"
    drawn = ["".join(shuffled.choices(alphabet, k=shuffled.randrange(40))) for _ in range(60)]
    drawn += [f"{prefix}_{text}" for text in drawn]
    for cursor in [*REFUSED, *foreign, *spelt, *drawn]:
        assert refused(client, url, cursor) != is_id(cursor, prefix), cursor
    page = client.get(url, params={"after": own})
    assert page.status_code == 200  # also of an item that is gone


def test_every_list_that_takes_a_cursor_is_tried(client):
    document = client.get("/openapi.json").json()
    cursors = {
        path
        for path, methods in document["paths"].items()
        for parameter in methods.get("get", {}).get("parameters", [])
        if parameter["name"] == "after"
    }
    assert cursors - {"/v1/runs/{run_id}/events"} == set(LISTS)  # those are numbered
    assert all(is_id(new_id(prefix), prefix) for prefix in LISTS.values())


@pytest.mark.parametrize("cursor", ["", "run_01", "-1", "zzz"])
def test_events_are_numbered(client, run_id, cursor):
    answer = client.get(f"/v1/runs/{run_id}/events", params={"after": cursor})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/query/after"
