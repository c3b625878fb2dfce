"""The file by which a folder is known as a testbed, and who may start or stop what is in it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from slurm.testbed.config import Layout, Ports, Shape
from slurm.testbed.errors import TestbedError


def read_record(layout: Layout) -> tuple[Shape, Ports]:
    """What the testbed was started with. Raises TestbedError where there is none."""
    try:
        record = json.loads(layout.record.read_text())
    except FileNotFoundError:
        raise TestbedError(
            f"there is no testbed in {layout.folder}."
            f" Start one: python -m slurm.testbed start --dir {layout.folder}"
        ) from None
    ports = Ports(**record["ports"])
    return Shape(**record["shape"]), replace(ports, nodes=tuple(ports.nodes))


def write_record(layout: Layout, shape: Shape, ports: Ports) -> None:
    """Make the folder known as a testbed, before anything is started in it."""
    record = {"shape": asdict(shape), "ports": asdict(ports)}
    unfinished = layout.record.with_suffix(".new")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    unfinished.replace(layout.record)


def check_folder(layout: Layout) -> None:
    """Refuse a folder with anything else in it, because `stop` removes it. Raises TestbedError."""
    folder = layout.folder
    if folder.exists() and not folder.is_dir():
        raise TestbedError(f"{folder} is not a folder")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if found - {"log", "testbed.new"} and not layout.record.exists():
        raise TestbedError(f"{folder} holds something else than a testbed; choose another folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Against another process that starts or stops the same testbed; raises TestbedError where one does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TestbedError(f"another process is starting or stopping the testbed in {folder}") from None
        yield
    finally:
        os.close(handle)
