"""The wheel: what is in it, and that all of the suite works from it, far from any checkout. No network."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from slurm.submission import PACKAGES
from yolor_core.identity import source_hash

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UV = (sys.executable, "-m", "uv")
OFFLINE = {"UV_OFFLINE": "1", "UV_NO_CACHE": "1", "UV_NO_CONFIG": "1"}

Run = Callable[..., str]


def tracked() -> list[str]:
    """What git knows of; outside a checkout, all that is no cache."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and not {"__pycache__", ".venv", "build"} & set(path.parts)
    ]


def sources() -> dict[str, bytes]:
    """Tracked files of the four packages."""
    return {name: (ROOT / name).read_bytes() for name in tracked() if name.split("/")[0] in PACKAGES}


def build(source: Path, out: Path, kind: str) -> Path:
    """The one file that `uv build` makes of a folder."""
    command = [*UV, "build", f"--{kind}", "--no-build-isolation", "--python", sys.executable]
    subprocess.run(
        [*command, "--out-dir", str(out), str(source)],
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
        check=True,
    )
    (built,) = (path for path in out.iterdir() if path.suffix in (".whl", ".gz"))
    return built


def content(wheel: Path) -> dict[str, bytes]:
    """Files of a wheel by name."""
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def is_metadata(name: str) -> bool:
    return name.split("/")[0].endswith(".dist-info")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, as a clean clone has them."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    (name,) = (name for name in content(wheel) if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(content(wheel)[name])


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, which sees the dependencies of the running one.

    A .pth file names their folder, and .pth files in a folder so named are not read: the editable install
    that the running environment has of this project is none here.
    """
    folder = tmp_path_factory.mktemp("far") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [*UV, "pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel)],
        env={**os.environ, **OFFLINE},
        check=True,
    )
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


@pytest.fixture(scope="module")
def run(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of that environment in an empty folder; returns what it prints."""
    empty = tmp_path_factory.mktemp("elsewhere")
    mine = ("PYTHON", "ABLATE_", "YOLOR_", "VIRTUAL_ENV")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    plain["GIT_CEILING_DIRECTORIES"] = str(installed.parent.resolve())  # a checkout around TMPDIR is not ours

    def run(*command: object, code: int = 0, cwd: Path = empty, **variables: str) -> str:
        program, *words = map(str, command)
        done = subprocess.run(
            [str(installed / "bin" / program), *words],
            cwd=cwd,
            env=plain | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def results(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table 1 at profile smoke, trained by the wheel."""
    folder = tmp_path_factory.mktemp("trained") / "results"
    said = run("ablate", "launch", "1", "--profile", "smoke", "--results", folder)
    assert "[2 of 2 done]" in said
    return folder


def test_the_wheel_holds_the_tracked_files_of_the_packages_and_nothing_else(wheel: Path) -> None:
    found = {name: data for name, data in content(wheel).items() if not is_metadata(name)}
    assert found.keys() == sources().keys()
    assert [name for name, data in sources().items() if found[name] != data] == []
    assert wheel.name == f"yolor_ablations-{PROJECT['version']}-py3-none-any.whl"


def test_its_metadata_are_those_of_the_project(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes) and text.strip() == (ROOT / "README.md").read_bytes().strip()


def test_it_requires_what_the_project_requires(metadata: Message) -> None:
    required = {Requirement(text) for text in metadata.get_all("Requires-Dist") or ()}
    expected = {Requirement(text) for text in PROJECT["dependencies"]}
    for extra, texts in PROJECT["optional-dependencies"].items():
        expected |= {Requirement(f'{text} ; extra == "{extra}"') for text in texts}
    assert required == expected


def test_it_carries_the_licence_and_the_command(wheel: Path, metadata: Message) -> None:
    found = {name.split("/", 1)[1]: data for name, data in content(wheel).items() if is_metadata(name)}
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert found["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert found["entry_points.txt"].decode().strip() == "[console_scripts]\nablate = ablations.cli:main"


def test_the_source_distribution_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for name in ("LICENSE", "README.md", "CITATION.cff", "CHANGELOG.md", "pyproject.toml"):
        assert (source / name).read_bytes() == (ROOT / name).read_bytes()
    again, first = content(build(source, tmp_path / "out", "wheel")), content(wheel)
    assert again.keys() == first.keys()
    assert [n for n, data in first.items() if again[n] != data and not n.endswith("/RECORD")] == []


def test_every_package_is_imported_from_the_wheel(run: Run, installed: Path) -> None:
    names = ", ".join(PACKAGES)
    code = f"import json, sys, {names}; print(json.dumps([[m.__file__ for m in ({names})], sys.path]))"
    files, path = json.loads(run("python", "-c", code, PYTHONSAFEPATH="1"))
    (site,) = (folder for folder in path if (Path(folder) / "ablations").exists())  # and there is no second
    assert Path(site).is_relative_to(installed)
    assert files == [str(Path(site) / name / "__init__.py") for name in PACKAGES]


def test_the_commands_that_train_nothing_answer(run: Run) -> None:
    assert run("ablate", "--version").strip() == f"ablate, version {PROJECT['version']}"
    assert "19 experiments, 29 rows" in run("ablate", "list")
    table = run("ablate", "tables", "1")
    assert "47.8" in table and "ours: not run" in table
    assert all(name in run("ablate", "cluster", "list") for name in ("example", "testbed"))
    verdict = run("ablate", "verify", code=2)
    assert "there is no folder results/published/mini" in verdict


def test_a_launch_on_a_cluster_is_rehearsed(run: Run, installed: Path) -> None:
    said = run(
        "ablate", "launch", "1", "--profile", "smoke", "--cluster", "testbed", "--dry-run", "--seeds", "2"
    )
    assert "#SBATCH --array=0-3" in said
    assert f"{installed}/bin/python -u -m slurm.worker" in said


def test_a_table_is_trained_printed_and_reported(run: Run, results: Path, tmp_path: Path) -> None:
    table = run("ablate", "tables", "1", "--profile", "smoke", "--results", results)
    assert "ours: not run" not in table and "+ iFA" in table
    run("ablate", "report", "1", "--profile", "smoke", "--results", results, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Table 1" in page
    for path in (ROOT / "analysis" / "report" / "assets").iterdir():
        assert (tmp_path / "report" / "assets" / path.name).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "report" / "runs").glob("csp*.html"))) == 2


def test_runs_of_a_wheel_know_their_sources_but_no_commit(run: Run, results: Path) -> None:
    records = [json.loads(path.read_text()) for path in results.glob("runs/*/run.json")]
    assert len(records) == 2
    for record in records:
        assert (record["commit"], record["dirty"]) == (None, None)
        assert record["source_hash"] == source_hash()
    said = run("ablate", "publish", "1", "--profile", "smoke", "--results", results, code=2)
    assert "2 of 2 runs do not say which commit they are of" in said and "--dirty" in said


def test_the_code_of_jobs_is_frozen_from_the_wheel(run: Run, tmp_path: Path) -> None:
    code = "from pathlib import Path; from slurm.submission import freeze; print(freeze(Path('.'), {}))"
    frozen = Path(run("python", "-c", code, cwd=tmp_path).strip())
    assert frozen.is_relative_to(tmp_path.resolve())
    found = {p.relative_to(frozen).as_posix(): p.read_bytes() for p in frozen.rglob("*") if p.is_file()}
    del found["snapshot.json"]
    assert found == sources()
    setup = {"PYTHONPATH": str(frozen), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    said = run("python", "-c", "import slurm.ending, ablations; print(ablations.__file__)", **setup)
    assert said.strip() == str(frozen / "ablations" / "__init__.py")
    assert "19 experiments, 29 rows" in run("python", "-m", "ablations", "list", **setup)


def test_a_notebook_looks_at_results_in_its_own_folder(run: Run, tmp_path: Path) -> None:
    said = run("python", "-c", "from analysis.notebook import here; here('1')", cwd=tmp_path)
    assert f"in {tmp_path.resolve()}/results." in said
    assert "in a terminal: ablate launch 1 2" in said
