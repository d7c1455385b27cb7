"""A real Ollama for tests: started on a loopback port, killed, started again with the same models."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass
class OllamaProcess:
    """A real `ollama serve` of this session; it can be killed and started again with the same models."""

    host: str
    models_dir: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        home = self.models_dir.parent
        environment = os.environ | {
            "OLLAMA_HOST": self.host.removeprefix("http://"),
            "OLLAMA_MODELS": str(self.models_dir),
            "HOME": str(home),
            "LLAMA_ARG_THREADS": "1",  # its engine's threads spin: beside other tests, two are many times slower
        }
        with (home / "ollama.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ollama", "serve"], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.host}/api/version", timeout=1).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise RuntimeError(f"ollama did not start: {(home / 'ollama.log').read_text()[-500:]}")

    def kill(self) -> None:
        """Kill the server and its engines at once, as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
