"""`ablate cluster`: profiles listed, shown and tried out."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from ablations.cli import main
from slurm.files import read_json
from tests.ablations.cluster_commands.submitted import Ablate
from tests.slurm.fake_slurm import FakeSlurm


def test_cluster_profiles_are_listed_and_shown(profile: str) -> None:
    listed = CliRunner().invoke(main, ["cluster", "list"])
    assert "example" in listed.stdout and "testbed.toml" in listed.stdout
    assert {"example", "testbed"} <= set(
        json.loads(CliRunner().invoke(main, ["cluster", "list", "--json"]).stdout)
    )
    shown = json.loads(CliRunner().invoke(main, ["cluster", "show", profile]).stdout)
    assert (shown["setup"], shown["time"], shown["retries"]) == (["module load cuda"], "10:00:00", 2)
    wrong = CliRunner().invoke(main, ["cluster", "show", "exampel"])
    assert wrong.exit_code == 2 and "unknown cluster" in wrong.stderr


def test_a_check_where_there_is_no_slurm_says_what_is_missing(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    slurm.remove("sbatch", "scancel")
    result = ablate("cluster", "check", profile, "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)
    assert finding["level"] == "problem"
    assert "sbatch" in finding["words"] and "scancel" in finding["words"] and "srun" not in finding["words"]
    assert not results.exists()


def test_a_check_that_is_refused_says_why(ablate: Ablate, slurm: FakeSlurm, profile: str) -> None:
    slurm.answer("sinfo", "main|infinite|gpu:4|8|32000|up|2|(null)")
    slurm.answer("sbatch", "slurm 23.11", to="--version")
    slurm.answer("sbatch", error="sbatch: error: Invalid account", code=1)
    result = ablate("cluster", "check", profile)
    assert result.exit_code == 1
    assert "PROBLEM  submission" in result.stdout and "`account`" in result.stdout


def test_a_check_sends_a_tiny_job_and_remembers_what_it_saw(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    scripts = slurm.accept(7)
    slurm.answer("sbatch", "slurm 23.11", to="--version")
    slurm.answer("sinfo", "main|infinite|gpu:4|8|32000|up|2|(null)")
    seen = {"host": "n1", "python": "3.11", "torch": "2", "cuda": "12", "gpus": 1, "gpu": "H100", "sum": 8.0}
    answer = results / "clusters" / ".probe-7.json"
    code = '$(set -- "$results"/code/*; printf "%s" "$1")'
    content = json.dumps({**seen, "given": "0", "code": "CODE"}).replace('"', '\\"').replace("CODE", code)
    slurm.shell("squeue", f'results="{results}"\nprintf "%s" "{content}" > "{answer}"\nexit 0')
    result = ablate("cluster", "check", profile)
    assert result.exit_code == 0, result.output
    assert "1 x H100" in result.stdout
    script = (scripts / "7.sh").read_text()
    assert "#SBATCH --time=4" in script  # two minutes to save in, and two to look around
    assert (read_json(results / "clusters" / "mine.json") or {})["shared"] is True
    assert list((results / "launches").iterdir()) == []
    assert not answer.exists()
