"""A server that keeps models as Ollama's HTTP interface says it, written by hand: blobs by hash, models by name, answers canned.

What it does not have is a model: an answer repeats the last message. Its replies have the form of Ollama 0.34's.
"""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any


class LocalOllama(http.server.ThreadingHTTPServer):
    """The state behind the handlers. `asked` are the bodies of all requests by path, in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.n_made = 0

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def keep(self, name: str, model: dict[str, Any]) -> None:
        self.n_made += 1
        self.models[name] = model | {"modified_at": f"2026-01-01T00:00:{self.n_made:02}Z"}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LocalOllama

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self.reply({"version": "0.34.4"})
        else:
            rows = [
                {"name": name, "digest": model["digest"], "size": model["size"], "modified_at": model["modified_at"]}
                for name, model in self.server.models.items()
            ]
            self.reply({"models": rows})

    def do_HEAD(self) -> None:
        known = self.path.removeprefix("/api/blobs/sha256:") in self.server.blobs
        self.send_response(200 if known else 404)
        self.end_headers()

    def do_DELETE(self) -> None:
        name = self.body()["model"]
        found = self.server.models.pop(name, None)
        self.reply({} if found else {"error": f"model '{name}' not found"}, 200 if found else 404)

    def do_POST(self) -> None:
        if self.path.startswith("/api/blobs/sha256:"):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            digest = self.path.removeprefix("/api/blobs/sha256:")
            if hashlib.sha256(content).hexdigest() != digest:
                return self.reply({"error": "digest mismatch"}, 400)
            self.server.blobs[digest] = content
            return self.reply({}, 201)
        body = self.body()
        self.server.asked.append((self.path, body))
        if self.path == "/api/create":
            return self.create(body)
        name = self.full(body.get("source") or body["model"])
        model = self.server.models.get(name)
        if model is None:
            return self.reply({"error": f"model '{name}' not found"}, 404)
        if self.path == "/api/copy":
            self.server.keep(self.full(body["destination"]), model)
            return self.reply({})
        if self.path == "/api/show":
            lines = [f'{key} "{value}"' for key, value in model["parameters"].items() if key != "stop"]
            lines += [f'stop "{word}"' for word in model["parameters"]["stop"]]
            return self.reply(
                {"system": model["system"], "template": model["template"], "parameters": "\n".join(lines)}
            )
        return self.answer(model, body)

    def create(self, body: dict[str, Any]) -> None:
        (digest,) = (value.removeprefix("sha256:") for value in body["files"].values())
        if digest not in self.server.blobs:
            return self.reply({"error": f"blob sha256:{digest} not found"}, 400)
        content = json.dumps([digest, body["template"], body["system"], body["parameters"]], sort_keys=True)
        made = {"digest": hashlib.sha256(content.encode()).hexdigest(), "size": len(self.server.blobs[digest])}
        self.server.keep(
            self.full(body["model"]), made | {key: body[key] for key in ("template", "system", "parameters")}
        )
        return self.stream([{"status": "parsing GGUF"}, {"status": "writing manifest"}, {"status": "success"}])

    def answer(self, model: dict[str, Any], body: dict[str, Any]) -> None:
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        if len(text) > model["parameters"]["num_ctx"]:
            inner = {"type": "exceed_context_size_error", "n_prompt_tokens": len(text), "n_ctx": 1024}
            return self.reply({"error": json.dumps({"error": inner})}, 400)
        if "prompt" in body:
            return self.reply({"response": text[::-1], "prompt_eval_count": len(text), "eval_count": 3})
        if body.get("_debug_render_only"):
            return self.reply({"_debug_info": {"rendered_template": f"<{text}>"}})
        if body.get("stream") is False:
            return self.reply({"message": {"content": text}, "prompt_eval_count": len(text)})
        pieces = [{"message": {"content": word}, "done": False} for word in text.split(" ")]
        if "fails" in pieces[0]["message"]["content"]:  # type: ignore[index]
            return self.stream([*pieces, {"error": "llama runner process has terminated"}])
        return self.stream(pieces if "stops" in text else [*pieces, {"message": {"content": ""}, "done": True}])

    def body(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        return value

    @staticmethod
    def full(name: str) -> str:
        return name if ":" in name else f"{name}:latest"

    def reply(self, value: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, events: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.end_headers()
        for event in events:
            self.wfile.write(json.dumps(event).encode() + b"\n")
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def local_ollama() -> Iterator[LocalOllama]:
    """A running server; it ends with the block."""
    with LocalOllama() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
