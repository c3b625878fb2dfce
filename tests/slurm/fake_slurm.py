"""Stand-ins for SLURM's programs: they answer what a test told them to, and note what they were asked."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

PROGRAMS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel", "sinfo", "sacctmgr")
# What a program refuses whatever a test has it answer: said by SLURM 22.05.
REFUSED = {
    "sinfo": """case " $* " in *" -a "*" -p "* | *" -p "*" -a "*)
echo "sinfo: error: Conflicting options, -a and -p, specified. Please choose one or the other." >&2
exit 1
;; esac"""
}


class FakeSlurm:
    """A folder with SLURM's programs, first on PATH; each says nothing and succeeds until told otherwise."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "fake-slurm"
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        self.monkeypatch = monkeypatch
        self.answers: dict[str, dict[str, str]] = {}
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", f"{self.bin}:{os.environ['PATH']}")
        for program in PROGRAMS:
            self.answer(program)

    def answer(self, program: str, text: str = "", error: str = "", code: int = 0, to: str = "") -> None:
        """What a program prints and returns; `to` are the first words that it is asked with, if not any."""
        lines = [f"printf '%s\\n' {shlex.quote(text)}"] if text else []
        lines += [f"printf '%s\\n' {shlex.quote(error)} >&2"] if error else []
        self.shell(program, "\n".join([*lines, f"exit {code}"]), to)

    def shell(self, program: str, body: str, to: str = "") -> None:
        """The same with a piece of shell, which knows its arguments."""
        self.answers.setdefault(program, {})[to] = body
        cases = sorted(self.answers[program].items(), key=lambda case: -len(case[0]))
        branches = [f"{shlex.quote(words)}*)\n{body}\n;;" for words, body in cases]
        note = f"{{ printf '%s\\t' \"$@\"; printf '\\n'; }} >> {shlex.quote(str(self.folder / program))}"
        path = self.bin / program
        path.write_text(
            "\n".join(["#!/bin/sh", note, REFUSED.get(program, ""), 'case "$*" in', *branches, "esac", ""])
        )
        path.chmod(0o755)

    def remove(self, *programs: str) -> None:
        """Take programs away, and whatever else is on PATH, so that nothing of that name is found."""
        for program in programs:
            (self.bin / program).unlink()
        self.monkeypatch.setenv("PATH", str(self.bin))

    def calls(self, program: str) -> list[list[str]]:
        """The arguments of each call, in order."""
        path = self.folder / program
        return [line.split("\t")[:-1] for line in path.read_text().splitlines()] if path.exists() else []

    def accept(self, first: int = 7) -> Path:
        """Let sbatch accept what it gets, as job `first` and on; returns where the scripts are."""
        scripts = self.folder / "scripts"
        scripts.mkdir()
        number = shlex.quote(str(self.folder / "next"))
        Path(self.folder, "next").write_text(f"{first}\n")
        self.shell(
            "sbatch",
            f'read -r id < {number}\nprintf "%s\\n" $((id + 1)) > {number}\n'
            f'while IFS= read -r line || [ -n "$line" ]; do printf "%s\\n" "$line"; done < "$1" '
            f'> {shlex.quote(str(scripts))}/$id.sh\nprintf "Submitted batch job %s\\n" "$id"\nexit 0',
        )
        self.answer("sbatch", to="--test-only")
        return scripts
