"""The units that are shipped are such as systemd takes, harden what they start, and agree with the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fuseline.cli.failing import ExitCode
from fuseline.settings import Settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
PROGRAM = "/opt/fuseline/bin/fuseline"

# Tenths: systemd calls up to 4.9 "OK".
WORST_EXPOSURE = 49

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not there")


def assignments(unit: Path) -> list[tuple[str, str]]:
    """(name, value) of each line that sets something, in order."""
    lines = unit.read_text().splitlines()
    return [
        (line.partition("=")[0], line.partition("=")[2]) for line in lines if re.match(r"[A-Za-z]+=", line)
    ]


def setting(unit: Path, name: str) -> str:
    """The value that the unit gives `name`, the last one where it gives several."""
    return dict(assignments(unit))[name]


def seconds(value: str) -> float:
    found = re.fullmatch(r"(\d+)s", value)
    assert found, f"{value} is not written in seconds"
    return float(found[1])


def installed(unit: Path, folder: Path) -> Path:
    """The unit as it would be on a machine where its program is installed: `verify` looks for that."""
    program = folder / "fuseline"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # An instance has to be named, as somebody does who starts one.
    copy = folder / unit.name.replace("@.", "@ingest.")
    copy.write_text(unit.read_text().replace(PROGRAM, str(program)))
    return copy


def test_there_is_a_unit_for_each_daemon() -> None:
    assert {unit.name for unit in UNITS} == {
        "fuseline-coordinator.service",
        "fuseline-http.service",
        "fuseline-migrate.service",
        "fuseline-worker@.service",
    }


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_without_a_word(unit: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(installed(unit, tmp_path))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    # What it does not know it only mentions, and ends well.
    assert (done.returncode, done.stdout) == (0, "")


@needs_systemd
def test_systemd_would_speak_up(tmp_path: Path) -> None:
    """The check above can fail."""
    unit = installed(UNITS[0], tmp_path)
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "NoNewPrivilege" in done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_calls_its_exposure_ok_or_better(unit: Path, tmp_path: Path) -> None:
    threshold = f"--threshold={WORST_EXPOSURE}"
    done = subprocess.run(
        [str(ANALYZE), "security", "--offline=yes", "--no-pager", threshold, str(installed(unit, tmp_path))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"Overall exposure level .*: \d\.\d (OK|SAFE|PERFECT)", done.stdout), done.stdout


def test_the_daemons_are_hardened_alike() -> None:
    """Three units share one block; a line that is added to one of them belongs into all."""

    def hardening(unit: Path) -> list[tuple[str, str]]:
        lines = assignments(unit)
        names = [name for name, _ in lines]
        last = names.index("SystemCallErrorNumber")
        return lines[names.index("NoNewPrivileges") : last + 1]

    daemons = [unit for unit in UNITS if "worker" not in unit.name]
    assert len({tuple(hardening(unit)) for unit in daemons}) == 1
    worker = set(hardening(FOLDER / "fuseline-worker@.service"))
    # What steps may need: see the comment in the unit.
    assert set(hardening(daemons[0])) - worker == {
        ("MemoryDenyWriteExecute", "yes"),
        ("ProcSubset", "pid"),
        ("SystemCallFilter", "~@privileged @resources"),
    }


@pytest.mark.parametrize("name", ["fuseline-coordinator.service", "fuseline-worker@.service"])
def test_what_speaks_the_notify_protocol_is_watched(name: str) -> None:
    unit = FOLDER / name
    assert setting(unit, "Type") == "notify"
    # Processes that execute steps inherit the socket's address.
    assert setting(unit, "NotifyAccess") == "main"
    assert seconds(setting(unit, "WatchdogSec")) > 0
    # It waits for its servers before it says that it is ready.
    assert setting(unit, "TimeoutStartSec") == "infinity"


def test_a_worker_is_not_ended_before_its_leases_are() -> None:
    watchdog = seconds(setting(FOLDER / "fuseline-worker@.service", "WatchdogSec"))
    assert watchdog > Settings.model_fields["lease_seconds"].default


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if "migrate" not in unit.name], ids=lambda unit: unit.name
)
def test_it_comes_back_but_for_what_stays_wrong(unit: Path) -> None:
    assert setting(unit, "Restart") == "on-failure"
    assert setting(unit, "RestartPreventExitStatus") == str(ExitCode.USAGE.value)


def test_a_worker_is_given_the_time_that_its_drain_takes() -> None:
    """SIGKILL in the middle of a drain would throw away what it was for."""
    unit = FOLDER / "fuseline-worker@.service"
    assert setting(unit, "KillSignal") == "SIGTERM"
    assert setting(unit, "KillMode") == "mixed"
    assert seconds(setting(unit, "TimeoutStopSec")) > Settings.model_fields["drain_seconds"].default


def test_the_worker_example_names_what_the_unit_reads() -> None:
    example = (FOLDER / "worker.env.example").read_text()
    used = set(re.findall(r"\$([A-Z_]+)", setting(FOLDER / "fuseline-worker@.service", "ExecStart")))
    assert used == {"WORKFLOWS", "WORKER_OPTIONS"}
    for name in used:
        assert re.search(rf"^#?{name}=\S", example, re.MULTILINE), name


def examples_of(unit: Path) -> list[Path]:
    """The example of each environment file that the unit reads."""
    names = [Path(value).name for name, value in assignments(unit) if name == "EnvironmentFile"]
    return [FOLDER / f"{name.replace('worker-%i', 'worker')}.example" for name in names]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_environment_file_has_an_example(unit: Path) -> None:
    assert [path.name for path in examples_of(unit) if not path.exists()] == []
    assert examples_of(unit)[0].name == "fuseline.env.example"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_examples_are_valid_settings(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As somebody has them who copies them and takes away every `#`."""
    for path in examples_of(unit):
        for name, value in re.findall(r"^#?(FUSELINE_[A-Z_]+)=(.*)$", path.read_text(), re.MULTILINE):
            assert name.removeprefix("FUSELINE_").lower() in Settings.model_fields, f"{path.name}: {name}"
            monkeypatch.setenv(name, value)
    Settings(_env_file=None)


def test_what_all_units_read_has_no_secret() -> None:
    assert "CHANGE-ME" not in (FOLDER / "fuseline.env.example").read_text()


@pytest.mark.parametrize("unit", ["fuseline-worker@.service", "fuseline-http.service"])
def test_only_coordinators_know_the_database(unit: str) -> None:
    own = examples_of(FOLDER / unit)[1]
    assert "DATABASE_URL" not in own.read_text()
