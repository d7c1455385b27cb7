"""Who is told how a cycle ended: a real receiver on the loopback, and programs in the place of the desktop's."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ai_forge.antigravity_agent.notify import notify, sign, signature_is_right
from ai_forge.config import GuardianSettings

SECRET = "s3cret"


class Receiver(HTTPServer):
    """Keeps what it is sent and answers with the statuses that it is given, 200 after them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def tell(url: str | None, secret: str = SECRET, *, desktop: bool = False) -> list[str]:
    settings = GuardianSettings(desktop=desktop, webhook=url)
    environment = {"AI_FORGE_WEBHOOK_SECRET": secret} if secret else {}
    return notify("title", "text", {"state": "deployed"}, settings, environment=environment, wait_s=0.0)


def test_a_receiver_can_check_who_sent_it_and_when(receiver: Receiver) -> None:
    assert tell(receiver.url) == []
    ((headers, body),) = receiver.got
    assert json.loads(body) == {"state": "deployed"}
    assert signature_is_right(SECRET, headers, body)
    assert not signature_is_right("other", headers, body)
    assert not signature_is_right(SECRET, headers, body + b" ")
    assert not signature_is_right(SECRET, headers | {"webhook-id": "msg_2"}, body)
    later = float(headers["webhook-timestamp"]) + 301
    assert not signature_is_right(SECRET, headers, body, now=lambda: later)
    assert not signature_is_right(SECRET, {}, body)


def test_the_signature_is_that_of_the_standard_webhooks() -> None:
    # the example of the specification's reference libraries
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_server_in_trouble_is_told_again_with_the_same_id(receiver: Receiver) -> None:
    receiver.answers = [503, 500]
    assert tell(receiver.url) == []
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 3


@pytest.mark.parametrize("status", [400, 302])
def test_a_refusal_is_not_repeated_and_a_redirect_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answers = [status] * 3
    assert tell(receiver.url) == [f"{receiver.url} was not told: it answered {status}."]
    assert len(receiver.got) == 1


def test_without_a_secret_or_a_server_nothing_is_sent_and_that_is_said(receiver: Receiver) -> None:
    assert "set AI_FORGE_WEBHOOK_SECRET" in tell(receiver.url, "")[0]
    assert receiver.got == []
    assert "was not told" in tell("http://127.0.0.1:9/nobody")[0]
    assert "was not told" in tell("no address")[0]


def test_the_desktop_gets_the_text_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nfor word in "$@"; do echo "$word" >> {said}; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    settings = GuardianSettings()
    assert notify("--urgency=critical\n$(id)", "<b>bold</b> `id`", {}, settings, environment={}) == []
    assert said.read_text().splitlines()[1:] == ["--", "--urgency=critical $(id)", "&lt;b&gt;bold&lt;/b&gt; `id`"]
    program.write_text("#!/bin/sh\nexit 3\n")
    assert "ended with 3" in notify("a", "b", {}, settings, environment={})[0]


def test_no_desktop_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tell(None, desktop=True) == []
