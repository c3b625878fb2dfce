"""The set-up: what is locked, what the Makefile offers, and what it says when something is missing."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.commands import check

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = load(ROOT / "tools" / "environment.py")


def pins() -> dict[str, list[Requirement]]:
    """Locked requirements by name; more than one where they differ between Pythons or systems."""
    found: dict[str, list[Requirement]] = {}
    for line in LOCK.replace("\\\n", " ").splitlines():
        requirement = Requirement(line.split(" --hash")[0])
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_the_lock_names_no_host() -> None:
    assert not re.search(r"://|--index|--extra|--find-links|--trusted|@ ", LOCK)


def test_every_locked_package_has_an_exact_version_and_hashes() -> None:
    for entry in LOCK.replace("\\\n", " ").splitlines():
        assert re.match(r"[a-z0-9-]+==[^ ;]+", entry)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_every_requirement_is_locked_within_its_bounds(python: str, system: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in extra)]
    target = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": system}
    locked = pins()
    for requirement in map(Requirement, wanted):
        if requirement.name == PROJECT["project"]["name"]:  # an extra that includes another
            continue
        (pin,) = (
            p
            for p in locked[canonicalize_name(requirement.name)]
            if p.marker is None or p.marker.evaluate(target)
        )
        (exact,) = pin.specifier
        assert Version(exact.version) in requirement.specifier, requirement


def test_torch_2_13_is_excluded() -> None:
    (torch,) = (r for r in map(Requirement, PROJECT["project"]["dependencies"]) if r.name == "torch")
    assert Version("2.13.0") not in torch.specifier
    assert Version("2.11.0") in torch.specifier


def test_the_workflow_runs_commands_that_exist() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["checks"]["steps"] if "run" in step]
    assert commands == ["make lint", "make docs", "make test", "make verify-published"]
    for command in commands:
        check(command)


def test_both_containers_are_made_by_the_same_steps() -> None:
    docker, apptainer = (
        " ".join((ROOT / name).read_text().split()) for name in ("Dockerfile", "apptainer.def")
    )
    for step in (
        "apt-get install --yes --no-install-recommends gcc libc6-dev git",
        "/opt/venv/bin/pip install --no-cache-dir --prefer-binary --require-hashes "
        "--requirement requirements.lock",
        "pip install --no-cache-dir --no-deps --no-build-isolation --editable .",
    ):
        assert step in docker and step in apptainer
    (base,) = re.findall(r"ARG BASE=(\S+)", docker)
    assert f"From: {base} " in apptainer


def test_the_page_of_commands_has_every_command() -> None:
    from ablations.cli import COMMANDS

    page = (ROOT / "docs" / "commands.md").read_text()
    named = set(re.findall(r"(?:^|`|bin/)ablate ([a-z]+)", page, flags=re.MULTILINE))
    assert named == set(COMMANDS)


def test_the_console_script_works() -> None:
    script = Path(sys.executable).parent / "ablate"
    shown = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith(PROJECT["project"]["version"])


def test_a_finished_environment_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "yolor-environment").write_text(environment.fingerprint(venv))
    assert environment.main(["--venv", str(venv)]) == 0
    assert capsys.readouterr().out == ""


def test_the_fingerprint_follows_the_lock_and_the_project(tmp_path: Path) -> None:
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text("a")
    before = environment.fingerprint(tmp_path / "venv", tmp_path)
    assert environment.fingerprint(tmp_path / "venv", tmp_path) == before
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text("b")
        after = environment.fingerprint(tmp_path / "venv", tmp_path)
        assert after != before
        before = after


def test_an_old_python_is_told_which_newer_one_to_use() -> None:
    environment.check_python((3, 11))
    with pytest.raises(
        environment.SetupError, match=r"3\.11 or newer is needed, but this is 3\.9.*PYTHON=python3\.12"
    ):
        environment.check_python((3, 9), which=lambda name: name if name == "python3.12" else None)
    with pytest.raises(environment.SetupError, match="install one"):
        environment.check_python((3, 9), which=lambda name: None)


def test_a_full_disk_is_named_with_what_is_needed(tmp_path: Path) -> None:
    environment.check_space(tmp_path, 8.5, "the environment", free=lambda folder: 9_000_000_000)
    with pytest.raises(environment.SetupError, match=rf"8\.5 GB.*{tmp_path} has only 2\.0 GB"):
        environment.check_space(tmp_path, 8.5, "the environment", free=lambda folder: 2_000_000_000)


def test_a_failed_build_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(environment, "compiler", lambda: False)
    with pytest.raises(environment.SetupError, match="no C compiler"):
        environment.install(tmp_path)
    monkeypatch.setattr(environment, "compiler", lambda: True)
    with pytest.raises(environment.SetupError) as caught:
        environment.install(tmp_path)
    assert "compiler" not in str(caught.value)


def test_a_missing_interpreter_is_named_by_make() -> None:
    command = ["make", "-C", str(ROOT), "env", "PYTHON=python-that-is-not-here"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MAKEFLAGS": ""})
    assert result.returncode != 0
    assert "no 'python-that-is-not-here' found" in result.stderr


def test_an_interpreter_too_old_to_read_the_script_is_named_by_make(tmp_path: Path) -> None:
    fake = tmp_path / "python2.7"  # answers as Python 2 does: -c runs, the script is a SyntaxError
    fake.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 1\necho "SyntaxError: invalid syntax" >&2\nexit 1\n')
    fake.chmod(0o755)
    command = ["make", "-C", str(ROOT), "env", f"PYTHON={fake}"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MAKEFLAGS": ""})
    assert result.returncode != 0
    assert f"'{fake}' is too old" in result.stderr
    assert "SyntaxError" not in result.stderr


def test_python_3_6_can_read_the_script() -> None:
    ast.parse((ROOT / "tools" / "environment.py").read_text(), feature_version=(3, 6))


def test_the_reference_data_is_named_in_one_place_only() -> None:
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no checkout to ask which files are the project's")
    files = tracked.stdout.splitlines()
    name = "../" + "shared"
    texts = [f for f in files if (ROOT / f).suffix in ("", ".py", ".md", ".toml", ".lock", ".cff")]
    assert {f for f in texts if (ROOT / f).is_file() and name in (ROOT / f).read_text(errors="ignore")} <= {
        ".ci/run"
    }
