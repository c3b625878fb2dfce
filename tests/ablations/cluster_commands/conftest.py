"""A results folder, a cluster profile, and `ablate` with stand-ins for SLURM's programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from tests.ablations.cluster_commands.submitted import HERE, NAMES, PROFILE, Ablate
from tests.slurm.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path, monkeypatch)
    fake.answer("scontrol", HERE, to="show node")
    fake.answer("scontrol", "ClusterName = tiny\nMaxArraySize = 1001", to="show config")
    return fake


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE)
    return str(path)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def ablate(slurm: FakeSlurm, results: Path) -> Ablate:
    """Run a command on the results folder."""

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--results", str(results)])

    return call


@pytest.fixture
def shared(ablate: Ablate, slurm: FakeSlurm, profile: str) -> str:
    """Three runs that were submitted as job 7 and share its GPU; what the launch said."""
    slurm.accept(7)
    Path(profile).write_text(f"{PROFILE}runs_per_gpu = 4\n")
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def launched(ablate: Ablate, slurm: FakeSlurm, profile: str) -> Path:
    """Three runs that were submitted as array 7, and where the scripts are."""
    scripts = slurm.accept(7)
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile)
    assert result.exit_code == 0, result.output
    return scripts
