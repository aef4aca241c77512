"""The container files agree with each other and with the code. There is no Docker where the tests run, so they are read.

What can be tried without it is: the workflow that comes along, and the passwords, on a real RabbitMQ
(tests/integration/deploy).
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fuseline.amqp.definitions import Role, password_hash
from fuseline.settings import Settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image") == "fuseline"}
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


prepare = SimpleNamespace(**runpy.run_path(str(FOLDER / "prepare.py")))


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)s", text)
    assert found, text
    return float(found[1])


# ---- compose


def test_the_whole_installation_is_there() -> None:
    assert set(SERVICES) == {
        "rabbitmq",
        "postgres",
        "migrate",
        "coordinator",
        "http",
        "worker",
        "dispatch",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_can_come(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            # Of our image's own check, or of one of its own.
            assert other in OURS or "healthcheck" in SERVICES[other]
            assert not SERVICES[other].get("healthcheck", {}).get("disable")
        if how["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no", "what starts again and again never completes"


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists(name: str) -> None:
    for variable in OURS[name]["environment"]:
        if variable.startswith("FUSELINE_"):
            assert variable.removeprefix("FUSELINE_").lower() in Settings.model_fields


@pytest.mark.parametrize("name", OURS)
def test_the_settings_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in OURS[name]["environment"].items():
        assert isinstance(value, str), f"{variable}: YAML would make something else of it"
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+\}", "x", value))
    Settings(_env_file=None)


@pytest.mark.parametrize("name", OURS)
def test_ours_run_with_no_rights(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_addresses_name_services() -> None:
    hosts = re.findall(r"(?:amqp|postgresql)://[^@]*@([a-z]+)/", (FOLDER / "compose.yaml").read_text())
    assert len(hosts) == 6
    assert set(hosts) == {"rabbitmq", "postgres"}


def test_only_coordinators_and_migrations_know_the_database() -> None:
    assert {name for name, service in OURS.items() if "FUSELINE_DATABASE_URL" in service["environment"]} == {
        "coordinator",
        "migrate",
    }


def test_every_password_is_made(tmp_path: Path) -> None:
    prepare.prepare(tmp_path)
    made = set(prepare.read_environment(tmp_path / ".env"))
    assert set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text())) <= made


def test_every_account_of_an_address_has_its_own_password() -> None:
    pairs = re.findall(r"amqp://fuseline-(\w+):\$\{(\w+)\}@", (FOLDER / "compose.yaml").read_text())
    assert len(pairs) == 4
    for role, variable in pairs:
        assert role in set(Role)
        assert variable == prepare.variable(f"fuseline-{role}")


def test_a_worker_is_given_the_time_that_its_drain_takes() -> None:
    worker = SERVICES["worker"]
    assert seconds(worker["stop_grace_period"]) > float(worker["environment"]["FUSELINE_DRAIN_SECONDS"])


def test_files_that_are_mounted_exist_or_are_made(tmp_path: Path) -> None:
    prepare.prepare(tmp_path)
    named = set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source not in named:
                assert (FOLDER / source).exists() or (tmp_path / source).exists(), source


def test_rabbitmq_finds_the_definitions_where_its_configuration_looks() -> None:
    configured = re.search(
        r"^definitions\.local\.path = (\S+)$",
        (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text(),
        re.MULTILINE,
    )
    assert configured is not None
    mounts = [volume.split(":")[1] for volume in SERVICES["rabbitmq"]["volumes"]]
    assert configured[1] in mounts


# ---- the image


def test_the_image_does_not_run_as_root() -> None:
    user = re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number, which Kubernetes can tell from root's"


def test_the_image_says_how_it_is() -> None:
    assert "HEALTHCHECK" in DOCKERFILE
    assert 'ENTRYPOINT ["fuseline"]' in DOCKERFILE


def test_what_the_image_copies_exists_and_is_let_through() -> None:
    let_through = set(re.findall(r"^!(.*)$", (FOLDER / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == let_through
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_pins_are_read_as_constraints() -> None:
    """The `sed` of the Dockerfile, in Python: every pin, without its hashes."""
    script = re.search(r"sed -n 's/(.*)/\\1/p' dev\.txt", DOCKERFILE)
    assert script is not None
    pattern = script[1].replace(r"\(", "(").replace(r"\)", ")")
    pins = (ROOT / "requirements" / "dev.txt").read_text()
    found = re.findall(pattern, pins, re.MULTILINE)
    assert len(found) == len(re.findall(r"^[a-z0-9._-]+==", pins, re.MULTILINE))
    assert all(re.fullmatch(r"[a-z0-9._-]+==[^ \\]+( ; .*[^ \\])?", pin) for pin in found)


# ---- the passwords


def test_the_hashes_are_those_of_the_passwords(tmp_path: Path) -> None:
    prepare.prepare(tmp_path)
    environment = prepare.read_environment(tmp_path / ".env")
    users = json.loads((tmp_path / "definitions.json").read_text())["users"]
    assert {user["name"] for user in users} == {f"fuseline-{role}" for role in Role}
    for user in users:
        password = environment[prepare.variable(user["name"])]
        salt = hashlib.sha256(password.encode()).digest()[:4]
        assert user["password_hash"] == password_hash(password, salt)


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    prepare.prepare(tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    prepare.prepare(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_password_that_somebody_chose_stays(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nRABBITMQ_WORKER_PASSWORD=chosen\nOTHER=x\n")
    prepare.prepare(tmp_path)
    environment = prepare.read_environment(tmp_path / ".env")
    assert environment["RABBITMQ_WORKER_PASSWORD"] == "chosen"
    assert environment["OTHER"] == "x"
    assert "POSTGRES_PASSWORD" in environment


def test_only_its_owner_reads_the_passwords(tmp_path: Path) -> None:
    prepare.prepare(tmp_path)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_what_is_made_is_not_committed() -> None:
    ignored = (FOLDER / ".gitignore").read_text().splitlines()
    assert {".env", "definitions.json"} <= set(ignored)
