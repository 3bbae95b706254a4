"""Every documented error has an example, and the service answers as the example says."""

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.api.problem_examples import IDS, UNKNOWN_PARAMETER
from service.domain import errors
from service.domain.access import Role
from service.settings import Settings
from service.usecases import api_keys
from tests.support.peft_adapters import adapter


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def problem_examples(operation):
    """Status and example of each error that the operation documents."""
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get("application/problem+json")
        if content is None:
            continue
        if "example" in content:
            yield int(status), content["example"]
        else:
            assert len(content["examples"]) > 1
            yield from ((int(status), example["value"]) for example in content["examples"].values())


def error_classes(base=errors.FairtuneError):
    yield base
    for derived in base.__subclasses__():
        yield from error_classes(derived)


def test_the_example_of_each_error_is_that_error(document):
    by_type = {kind.type: kind for kind in error_classes()}
    seen = set()
    for name, operation in operations(document):
        with_problem = {
            int(status)
            for status, answer in operation["responses"].items()
            if "application/problem+json" in answer.get("content", {})
        }
        found = list(problem_examples(operation))
        assert {status for status, _ in found} == with_problem, name
        for status, example in found:
            kind = by_type[example["type"]]
            assert example["status"] == status == kind.status, name
            assert example["title"] == kind.title, name
            assert len(example["detail"]) > 5, name
            assert ("errors" in example) is (status == 422), name
            seen.add(kind)
    # The base class never reaches HTTP, and no operation answers that its method is wrong.
    without_operation = {errors.FairtuneError, errors.MethodNotAllowed}
    assert seen == set(by_type.values()) - without_operation


def filled(path, **ids):
    return path.format_map(IDS | ids)


def calls_with_example(document, status):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for found, example in problem_examples(operation):
                if found == status:
                    yield method.upper(), path, operation, example


def body_for(operation):
    """A valid body, or none where the call takes none."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return {}
    example = next(iter(content.get("examples", {}).values()), None)
    if example is None:
        return {"json": {"name": "a", "role": "admin"}}
    return {"json": example["value"]}


def query_for(method, path, run_id=IDS["run_id"]):
    if path == "/v1/compare":
        return {"runs": f"{run_id},{run_id}@1"}
    return {"merge_id": IDS["merge_id"]} if (method, path[-7:]) == ("DELETE", "/merged") else {}


def test_the_examples_of_404_are_what_the_service_answers(client, document, run_id):
    replayed = 0
    for method, path, operation, example in calls_with_example(document, 404):
        if "{" not in path and path != "/v1/compare":
            continue  # nothing in the path can be missing
        # A run that exists where something below it is missing, else one that does not.
        run = IDS["run_id"] if f"no run '{IDS['run_id']}'" in example["detail"] else run_id
        answer = client.request(
            method,
            filled(path, run_id=run),
            params=query_for(method, path, run),
            **body_for(operation),
        )
        body = {
            key: value.replace(run_id, IDS["run_id"]) if isinstance(value, str) else value
            for key, value in answer.json().items()
        }
        assert body == example, (method, path)
        replayed += 1
    assert replayed > 30


def test_the_examples_of_422_are_what_the_service_answers(client, document, sample):
    bodies = {
        "/v1/runs": {"lora": {"r": 0}},
        "/v1/runs/{run_id}/clone": {"lora": {"r": 0}},
        "/v1/runs/{run_id}/evaluations": {"max_samples": 0},
        "/v1/runs/{run_id}/predictions": {},
        "/v1/runs/{run_id}/promote": {},
        "/v1/keys": {"role": "admin"},
    }
    for method, path, operation, example in calls_with_example(document, 422):
        if path == "/v1/datasets" and method == "POST":
            rows = sample["train"].splitlines()[:16]
            rows.append(b'{"text": "a", "label": "hat"}')
            files = {"train": ("train.jsonl", b"\n".join(rows))}
            answer = client.post(path, data={"name": "a"}, files=files)
        elif path == "/v1/adapters" and method == "POST":
            files = {"file": adapter({"peft_type": "ADALORA"})}
            answer = client.post(path, files=files)
        elif method == "POST" and path in bodies:
            ids = {}
            if path.endswith("clone"):
                ids["run_id"] = _run(client, sample)
            answer = client.post(filled(path, **ids), json=bodies[path])
        else:
            answer = client.request(
                method, filled(path), params={UNKNOWN_PARAMETER: "1"}, **body_for(operation)
            )
        got = answer.json()
        assert got["status"] == 422, (method, path, got)
        if path in bodies and method == "POST":  # a body may have further errors
            assert example["errors"][0] in got["errors"], (method, path)
        else:
            assert got == example, (method, path)


def _run(client, sample):
    dataset = client.post("/v1/datasets", data={"name": "sample"}, files=sample).json()
    body = {"dataset_id": dataset["id"], "preset": "quick_test", "base_model": "tiny"}
    return client.post("/v1/runs", json=body).json()["id"]


def test_the_examples_of_401_and_403_are_what_the_service_answers(client, context, document):
    api_keys.create(context.database, "first", Role.ADMIN)
    dashboard = api_keys.create(context.database, "dashboard", Role.VIEWER)
    for method, path, _, example in calls_with_example(document, 401):
        assert client.request(method, filled(path)).json() == example, (method, path)
    headers = {"Authorization": f"Bearer {dashboard.token}"}
    refused = 0
    for method, path, _, example in calls_with_example(document, 403):
        answer = client.request(method, filled(path), headers=headers)
        if answer.status_code == 403:
            assert answer.json() == example, (method, path)
            refused += 1
    assert refused > 15


def test_the_examples_of_other_errors_are_what_the_service_answers(client, document, run_id):
    """Where a queued run is enough to provoke them."""
    replayed = {406: 0, 409: 0, 400: 0}
    for method, path, _, example in calls_with_example(document, 406):
        ids = {"run_id": run_id}
        answer = client.request(
            method,
            filled(path, **ids),
            params=query_for(method, path, run_id),
            headers={"Accept": "image/png"},
        )
        assert answer.json() == example, (method, path)
        replayed[406] += 1
    for method, path, operation, example in calls_with_example(document, 409):
        if "queued" not in example["detail"]:
            continue
        answer = client.request(
            method,
            filled(path, run_id=run_id),
            params=query_for(method, path, run_id),
            **({"json": {}} if path.endswith("/evaluations") else body_for(operation)),
        )
        answered = answer.json()
        assert answered["detail"].replace(run_id, IDS["run_id"]) == example["detail"], (
            method,
            path,
        )
        assert answered["type"] == example["type"], (method, path)
        replayed[409] += 1
    for method, path, operation, example in calls_with_example(document, 400):
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            answer = client.request(
                method,
                filled(path, run_id=run_id),
                content=b"{",
                headers={"Content-Type": "application/json"},
            )
        else:
            headers = {"X-Forwarded-For": "192.0.2.1"}
            answer = client.request(method, filled(path), headers=headers)
        assert answer.json() == example, (method, path)
        replayed[400] += 1
    assert replayed[406] == 4
    assert replayed[409] >= 7
    assert replayed[400] > 40


def test_the_examples_of_limits_are_what_the_service_answers(settings, document):
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        for method, path, operation, example in calls_with_example(document, 413):
            content_type = "multipart/form-data; boundary=a"
            if "multipart/form-data" not in operation.get("requestBody", {}).get("content", {}):
                content_type = "application/json"
            answer = client.request(
                method,
                filled(path),
                content=b"{}",
                headers={"Content-Length": str(1 << 40), "Content-Type": content_type},
            )
            assert answer.json() == example, (method, path)
