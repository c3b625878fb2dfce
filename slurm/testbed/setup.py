"""Writing what the daemons of a testbed read when they start: configuration, secrets, an empty database."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from slurm.testbed import config
from slurm.testbed.config import Layout, Ports, Shape
from slurm.testbed.daemons import tail
from slurm.testbed.errors import TestbedError


def write_configuration(layout: Layout, shape: Shape, ports: Ports) -> None:
    """Make the folders and write every file that a daemon needs."""
    for path in layout.folders:
        path.mkdir(mode=0o700, exist_ok=True)
    password = secrets.token_hex(16)
    host = socket.gethostname().partition(".")[0]
    layout.slurm_conf.write_text(config.slurm_conf(layout, shape, ports, host))
    layout.slurm_conf.with_name("gres.conf").write_text(config.gres_conf(layout, shape))
    for index in range(shape.gpus):
        layout.gpu(index).symlink_to("/dev/null")
    for name in shape.node_names:
        (layout.folder / "spool" / name).mkdir()
    _write_secret(layout.munge_key, secrets.token_bytes(128))
    if shape.accounting:
        dbd = config.slurmdbd_conf(layout, ports, password)
        _write_secret(layout.slurm_conf.with_name("slurmdbd.conf"), dbd.encode())
        _write_secret(layout.grants, config.grants_sql(password).encode())


def set_up_database(layout: Layout, environment: Mapping[str, str]) -> None:
    """Make the empty database of the accounting. Raises TestbedError with the program's own words."""
    with layout.output("mariadb-install-db").open("wb") as file:
        answer = subprocess.run(
            config.database_setup_command(layout),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=layout.folder,
        )
    if answer.returncode:
        raise TestbedError(f"mariadb-install-db failed:\n{tail('mariadb-install-db', layout)}")


def _write_secret(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
