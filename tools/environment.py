"""Make the Python environment of the project: `python3 tools/environment.py [--venv .venv]`.

Checks what is needed, installs exactly what requirements.lock names, then the project itself in editable
mode. A stamp records what was installed, so a second call does nothing. Standard library only, and written
so that Python 3.6 to 3.10 can parse it and say that they are too old; the Makefile turns away older ones.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
# The Linux wheels of torch bring CUDA's libraries along: 5.7 GB installed, 3 GB of downloads in pip's cache.
GIGABYTES = 8.7 if sys.platform.startswith("linux") else 3.0
GIGABYTES_TEMPORARY = 2.0


class SetupError(Exception):
    """Something is missing that the user has to provide; the message says what and how."""


def check_python(version: tuple = sys.version_info[:2], which=shutil.which) -> None:
    """Raise SetupError, naming the newer interpreters found, when this one is too old."""
    if tuple(version) >= OLDEST:
        return
    newer = ("python3.12", "python3.11", "python3.13", "python3.14")  # the tests run on the first two
    found = [name for name in newer if which(name)]
    hint = (
        "make env PYTHON=" + found[0] if found else "install one, then: make env PYTHON=/path/to/python3.11"
    )
    raise SetupError(
        "Python {}.{} or newer is needed, but this is {}.{} ({}). Try: {}".format(  # noqa: UP032
            OLDEST[0], OLDEST[1], version[0], version[1], sys.executable, hint
        )
    )


def check_space(
    folder: Path, gigabytes: float, purpose: str, free=lambda folder: shutil.disk_usage(str(folder)).free
) -> None:
    """Raise SetupError when `folder`'s disk has less than `gigabytes` (10^9 bytes) free."""
    available = free(folder) / 1e9
    if available < gigabytes:
        raise SetupError(
            f"{gigabytes:.1f} GB of free disk space are needed for {purpose}, "
            f"but {folder} has only {available:.1f} GB left."
        )


def check_disk(venv: Path) -> None:
    """Check the disk of the environment, and that of temporary files where it is another one."""
    folder = venv.resolve().parent
    check_space(folder, GIGABYTES, "the environment")
    temporary = Path(tempfile.gettempdir())
    if temporary.stat().st_dev != folder.stat().st_dev:
        check_space(temporary, GIGABYTES_TEMPORARY, "downloads (set TMPDIR to use another folder)")


def fingerprint(venv: Path, root: Path = ROOT) -> str:
    """Hash (hex) of everything an installed environment depends on."""
    digest = hashlib.sha256(str(venv.resolve()).encode())
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    return digest.hexdigest()


def interpreter(venv: Path) -> str:
    """Path of the environment's Python."""
    return str(venv / "bin" / "python")


def usable(venv: Path) -> bool:
    """Whether the environment has a Python, new enough and with pip, that runs (a moved one does not)."""
    code = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.run([interpreter(venv), "-c", code], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def create(venv: Path) -> None:
    """Create the virtual environment with the interpreter that runs this script."""
    print(f"creating {venv} with Python {sys.version.split()[0]}", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)]).returncode:
        raise SetupError(
            "Python could not create a virtual environment. On Debian and Ubuntu its parts come separately: "
            f"apt-get install python3.{sys.version_info[1]}-venv"
        )


def compiler(which=shutil.which) -> bool:
    """Whether there is a C compiler."""
    return any(which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang"))


def install(venv: Path, root: Path = ROOT) -> None:
    """Install the locked packages (every file checked against its hash), then the project."""
    pip = [interpreter(venv), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    print("installing the packages of requirements.lock (some minutes the first time)", flush=True)
    lock = str(root / "requirements.lock")
    if subprocess.run([*pip, "--prefer-binary", "--require-hashes", "-r", lock]).returncode:
        message = "pip could not install the packages; its message is above."
        if not compiler():
            message += (
                " If it tried to build one from source: there is no C compiler here (cc, gcc or clang). "
                "Debian and Ubuntu: apt-get install build-essential; macOS: xcode-select --install."
            )
        raise SetupError(message)
    if subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(root)]).returncode:
        raise SetupError("pip could not install the project itself; its message is above.")


def main(arguments=None) -> int:
    """Make or complete the environment; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment")
    parser.add_argument("--force", action="store_true", help="install again even where nothing changed")
    options = parser.parse_args(arguments)
    stamp = options.venv / "yolor-environment"
    try:
        check_python()
        wanted = fingerprint(options.venv)
        here = stamp.exists() and Path(interpreter(options.venv)).exists()
        if here and not options.force and stamp.read_text() == wanted:
            return 0
        if not usable(options.venv):
            check_disk(options.venv)
            create(options.venv)
        install(options.venv)
        stamp.write_text(wanted)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"environment ready in {options.venv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
