"""Structured logs of the service: one JSON object a line, with the request and the job it belongs to.

Nothing that a caller sent is logged: no key, no question, no file. Paths of requests are routes (`/status/{job_id}`), not what
was typed. The audit log is a file of its own, because it has to outlive the others: who started, deployed, removed what.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

__all__ = ["AUDIT_FILE", "Audit", "in_job", "in_request", "log_as_json", "request_id"]

AUDIT_FILE = "audit.jsonl"
_request: ContextVar[str] = ContextVar("request_id", default="")
_job: ContextVar[str] = ContextVar("job_id", default="")


def request_id() -> str:
    """The id of the request that is being answered; empty outside one."""
    return _request.get()


@contextlib.contextmanager
def in_request(identifier: str) -> Iterator[None]:
    """What is logged meanwhile belongs to this request."""
    token = _request.set(identifier)
    try:
        yield
    finally:
        _request.reset(token)


@contextlib.contextmanager
def in_job(identifier: str) -> Iterator[None]:
    """What is logged meanwhile belongs to this job."""
    token = _job.set(identifier)
    try:
        yield
    finally:
        _job.reset(token)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in (("request_id", _request.get()), ("job_id", _job.get())):
            if value:
                line[name] = value
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


@contextlib.contextmanager
def log_as_json(stream: TextIO | None = None, level: int = logging.INFO) -> Iterator[None]:
    """Everything that `ai_forge` and uvicorn log goes to `stream` (stderr) as JSON lines while the block runs."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLines())
    loggers = [logging.getLogger(name) for name in ("ai_forge", "uvicorn.error")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (old_level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old_level)
            logger.propagate = propagate


class Audit:
    """Who asked to start, stop, deploy or remove what: lines that are only ever added, each before it is done.

    So on a full disk nothing is done that is not written down.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def record(self, who: str, action: str, target: str, **more: object) -> None:
        """Add a line. `who` is a key's name and id, never the key."""
        line = {"time": round(time.time(), 3), "who": who, "action": action, "target": target}
        text = json.dumps(line | {"request_id": request_id()} | more, ensure_ascii=False, default=str)
        left = memoryview(f"{text}\n".encode("utf-8", "backslashreplace"))
        with self._lock, self._path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:  # the disk is full: no half line, which the next one would be added to
                file.truncate(before)
                raise
