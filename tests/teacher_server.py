"""A real HTTP server on 127.0.0.1 that plays an OpenAI-compatible teacher, good or bad as a test wants."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Item = dict[str, Any]
Reply = tuple[int, dict[str, str], str]
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}


def good(item: Item) -> Item:
    """Other words that hold."""
    words = {"n": item["n"], "question": f"Please tell me: {item['question']}"}
    if "answer" in item:
        words["reasoning"] = f"The place to look at is {' and '.join(item['subject'])}."
        words["answer"] = f"In short: {item['answer']}"
    return words


def completion(items: list[Item]) -> Reply:
    content = json.dumps({"items": items})
    answer = {"choices": [{"message": {"role": "assistant", "content": content}}], "usage": USAGE}
    return 200, {}, json.dumps(answer)


def all_good(_number: int, items: list[Item]) -> Reply:
    return completion([good(item) for item in items])


@dataclass
class TeacherServer:
    """What was asked (`bodies`, `headers`, `questions`), and how to answer: `reply(number of the request, items)`."""

    reply: Callable[[int, list[Item]], Reply] = all_good
    delay_s: float = 0.0
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def questions(self) -> list[str]:
        """The questions of all requests."""
        return [item["question"] for body in self.bodies for item in items_of(body)]


def items_of(body: dict[str, Any]) -> list[Item]:
    text = body["messages"][-1]["content"].rpartition("Items:\n")[2]
    items: list[Item] = json.JSONDecoder().raw_decode(text)[0]["items"]
    return items


@contextmanager
def teacher_server() -> Iterator[TeacherServer]:
    state = TeacherServer()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # head and body in one packet: two would wait for each other

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(state.bodies)
                state.bodies.append(body | {"path": self.path})
                state.headers.append(dict(self.headers))
            time.sleep(state.delay_s)
            status, headers, text = state.reply(number, items_of(body))
            try:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(text.encode()))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
