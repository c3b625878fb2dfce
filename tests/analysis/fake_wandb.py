"""A stand-in for W&B's server on this machine: answers what wandb asks, and keeps what it sends."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeServer:
    """The one run that it has. `lines` are rows of the history, JSON; `exits` one code for each end."""

    url: str = ""
    there: bool = False
    lines: list[str] = field(default_factory=list)
    summary: str = "{}"
    config: str = "{}"
    exits: list[int] = field(default_factory=list)

    def rows(self) -> list[tuple[int, dict[str, Any]]]:
        """Step and values of each line, without wandb's own."""
        read = [json.loads(line) for line in self.lines]
        return [(row["_step"], {k: v for k, v in row.items() if not k.startswith("_")}) for row in read]

    def stream(self, sent: dict[str, Any]) -> None:
        """A part of the history, put where it says; a new summary; the end."""
        for name, part in (sent.get("files") or {}).items():
            if "history" in name:
                self.lines[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
            if "summary" in name:
                self.summary = part["content"][-1]
        if "exitcode" in sent:
            self.exits.append(sent["exitcode"])

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """To a question in GraphQL."""
        owner = {"id": "p", "name": "yolor-ablations", "entity": {"id": "e", "name": "me"}}
        bucket: dict[str, Any] = {"id": "r", "name": given.get("name"), "displayName": "d", "project": owner}
        if "mutation UpsertBucket" in query:
            new, self.there = not self.there, True
            self.config = given.get("config") or self.config
            bucket |= {"config": self.config, "historyLineCount": len(self.lines)}
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if "query RunResumeStatus" in query:
            bucket |= {
                "config": self.config,
                "summaryMetrics": self.summary,
                "historyLineCount": len(self.lines),
                "eventsLineCount": 0,
                "logLineCount": 0,
                "historyTail": json.dumps(self.lines[-1:]),
                "eventsTail": "[]",
                "wandbConfig": '{"t": {}}',  # without it a run counts as not begun
            }
            return {"model": owner | {"bucket": bucket if self.there else None}}
        if "viewer" in query:
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}"}}
        if "createRunFiles" in query:
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}
        return {}


@contextmanager
def serve() -> Iterator[FakeServer]:
    """The server, on a port of its own."""
    server = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            sent = json.loads(gzip.decompress(data) if packed else data)
            reply: dict[str, Any] = {}
            if self.path.endswith("file_stream"):
                server.stream(sent)
            else:
                reply = {"data": server.answer(sent["query"], sent.get("variables") or {})}
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{listening.server_port}"
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
