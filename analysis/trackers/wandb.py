"""Runs in Weights & Biases: online, or as a file for `wandb sync` that is read back and compared."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.trackers.record import GOING_ON, PROJECT, Record, Sent, TrackerError, digest, installed, plain
from yolor_core.errors import summary

WAIT = 60.0  # seconds until the file of an offline run has to be whole
START, BLOCK, HEAD = b":W&B\xe1\xbe\x00", 32768, struct.Struct("<IHB")  # head: checksum, length, kind
WHOLE, LAST = 1, 4  # kinds


@dataclass(frozen=True)
class Content:
    """What W&B has, or has to have, of a run.

    Attributes:
        rows: what is logged, by step, which is the epoch.
        config: the configuration and the rest of run.json.
        ends: the final scores and the state, for the summary.
    """

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    ends: dict[str, Any] = field(default_factory=dict)


def to_wandb(
    record: Record, folder: Path, project: str = PROJECT, entity: str | None = None, offline: bool = False
) -> Sent:
    """Send a run to Weights & Biases, or write it offline for `wandb sync`.

    Offline, a file of the same run that has not been uploaded is replaced, and the new one is read back and
    compared value by value. Online, only epochs after the last one that is there are sent.

    Args:
        record: what to send.
        folder: where the folder `wandb/` is, or is made.
        project: of W&B.
        entity: user or team of W&B; None for the user's default.
        offline: write a file, and call nobody.

    Raises TrackerError where wandb is not installed, nobody is logged in, or W&B refuses.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    with installed():
        import wandb
    folder = folder.absolute()  # wandb's service may have been started elsewhere
    content = _content(record)
    numbers = sum(map(len, content.rows.values())) + len(record.scores)
    # wandb puts `-1` at the end of the folder of a second run within one second.
    older = sorted((folder / "wandb").glob(f"offline-run-*-{record.key}*")) if offline else []
    for each in older:
        file = each / f"run-{record.key}.wandb"
        if not _lacks(file, content):
            return Sent(0, numbers, _to_upload(each))
        if Path(f"{file}.synced").exists():
            said = "was uploaded, and the run has gone on since: send the rest without --offline"
            raise TrackerError(f"{each} {said}")
    settings = wandb.Settings(
        silent=True,
        console="off",
        host="",  # nothing of the machine and process that send
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_update_finish_state=record.status not in GOING_ON,
    )
    try:
        if not offline and not wandb.login(prompt=False):
            said = "run `wandb login`, set WANDB_API_KEY, or write a file with --offline"
            raise TrackerError(f"nobody is logged in to W&B: {said}")
        run = wandb.init(
            project=project,
            entity=entity,
            id=record.key,
            name=record.run,
            group=record.content.get("experiment"),
            config=content.config if offline else None,
            dir=folder,
            mode="offline" if offline else "online",
            resume=None if offline else "allow",
            settings=settings,
        )
        code = 0 if record.status in (*GOING_ON, "FINISHED") else 1
        first = 0
        if not offline:
            if (known := _first_new(run, content)) is None:
                where = run.url
                run.finish(exit_code=code)
                said = (
                    "epochs that were sent have been trained again since; delete it there, and send it anew"
                )
                raise TrackerError(f"{where}: {said}")
            first = known
            run.config.update(content.config, allow_val_change=True)
        new = [epoch for epoch in record.epochs if epoch.epoch >= first]
        scores = sum(run.summary.get(name) != value for name, value in record.scores.items())
        for epoch in new:  # one call an epoch: of a second value at a step wandb loses the first
            run.log({**epoch.values, "_timestamp": epoch.time}, step=epoch.epoch)
        run.summary.update(content.ends)
        file, where = Path(run.settings.sync_file), "" if offline else str(run.url)
        run.finish(exit_code=code)
    except wandb.errors.Error as error:
        raise TrackerError(f"W&B says: {summary(error)}") from None
    if not offline:
        return Sent(sum(len(epoch.values) for epoch in new) + scores, numbers, where)
    _wait(file, content)
    for each in older:
        shutil.rmtree(each)
    return Sent(numbers, numbers, _to_upload(file.parent))


def _to_upload(folder: Path) -> str:
    return f"{folder}; upload it with: wandb sync {shlex.quote(str(folder))}"


def _content(record: Record) -> Content:
    rows = {epoch.epoch: dict(epoch.values) for epoch in record.epochs}
    config = {name: value for name, value in record.content.items() if name != "config"}
    rest = dict(record.content.get("config", {}))
    config |= rest.pop("science", {}) | rest  # names as `--set` has them
    config |= {"beside": record.beside, "sent": _sent(rows)}
    ends = {**record.scores, "state": str(record.state), "reason": record.reason}
    return Content(rows, json.loads(json.dumps(plain(config))), ends)


def _sent(rows: Mapping[int, Any]) -> dict[str, Any]:
    return {"epochs": max(rows, default=0), "digest": digest(list(rows.items()))}


def _first_new(run: Any, content: Content) -> int | None:
    """The first epoch that W&B has not; None where one that it has is another one by now."""
    sent = dict(run.config).get("sent")
    if not run.resumed or not sent:
        return 0
    there = {epoch: row for epoch, row in content.rows.items() if epoch <= sent["epochs"]}
    return int(run.starting_step) if _sent(there) == dict(sent) else None


def _wait(file: Path, content: Content) -> None:
    """Until the file is whole: finish() comes back before. Raises TrackerError where it stays less."""
    until = time.monotonic() + WAIT
    while lacks := _lacks(file, content):
        if time.monotonic() > until:
            raise TrackerError(f"{file} was not written as it should be: {lacks}; try again")
        time.sleep(0.05)


def _lacks(file: Path, content: Content) -> str:
    """What an offline file has otherwise than `content`; empty where it is whole and has just that."""
    try:
        found, whole = read_offline(file)
    except (OSError, TrackerError) as error:
        return summary(error)
    steps = sorted(found.rows.keys() | content.rows.keys())
    wrong = [f"epoch {step}" for step in steps if found.rows.get(step) != content.rows.get(step)]
    wrong += [f"config {name}" for name, value in content.config.items() if found.config.get(name) != value]
    wrong += [f"summary {name}" for name, value in content.ends.items() if found.ends.get(name) != value]
    wrong += [] if whole else ["the last record"]
    return ", ".join(wrong[:3])


def read_offline(path: Path) -> tuple[Content, bool]:
    """What stands in the .wandb file of an offline run, without wandb's own entries; and whether it is whole.

    The file is a log of blocks in LevelDB's format, of wandb's own messages. Of several rows at one step the
    last counts, as for `wandb sync`. Raises TrackerError for a file that is none, or damaged.
    """
    with installed():
        from wandb.proto.wandb_internal_pb2 import Record as Message
    found, whole, message = Content(), False, Message()
    for data in _logged(path):
        message.ParseFromString(data)
        match message.WhichOneof("record_type"):
            case "history":
                found.rows[message.history.step.num] = _values(message.history.item)
            case "run":
                found.config.update(_values(message.run.config.update))
            case "config":
                found.config.update(_values(message.config.update))
            case "summary":
                found.ends.update(_values(message.summary.update))
            case "exit":
                whole = True
    return found, whole


def _values(items: Any) -> dict[str, Any]:
    """Name -> value of a message's list of items."""
    named = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
    return {name: value for name, value in named.items() if not name.startswith("_")}


def _logged(path: Path) -> Iterator[bytes]:
    """The records of a log; one that is not written to its end is left out."""
    data = path.read_bytes()
    if data[: len(START)] != START:
        raise TrackerError(f"{path} is not a file of an offline run of W&B")
    at, record = len(START), b""
    while at + HEAD.size <= len(data):
        if (left := BLOCK - at % BLOCK) < HEAD.size:  # of a block: too short for a head
            at += left
            continue
        checksum, length, kind = HEAD.unpack_from(data, at)
        part = data[at + HEAD.size : at + HEAD.size + length]
        if len(part) < length:
            return
        if zlib.crc32(bytes([kind]) + part) != checksum:
            raise TrackerError(f"{path} is damaged at byte {at}")
        at += HEAD.size + length
        record += part
        if kind in (WHOLE, LAST):
            yield record
            record = b""
