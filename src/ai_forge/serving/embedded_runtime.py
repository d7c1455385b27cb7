"""The runtime that is always there: llama.cpp in this process, models in a folder.

    models/<name>/<version>/model.gguf        a hard link where the disk allows it, else a copy
    models/<name>/<version>/deployment.json   template, system text, stop words, sampling, and the stamp of the file
    models/<name>/latest.txt                  the active version, replaced in one rename

A version's folder is filled beside its place and renamed, so it is whole or absent. A hard link shares the run's bytes, and
what is written to them later: the file is hashed again before it is loaded when its size, time or inode are not those
recorded (15 GB take some 20 s; a stamp takes none).

The model of the last request stays loaded, for all threads, and answers as many at once as it has slots; asking another one
frees it when its last answer ends, so a service of several models at once wants Ollama. Nothing is shared with other
processes: each that asks loads its own.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.places import SEAL, holds_what_was_written, regular_bytes, sealed
from ai_forge.prompting.prompt import Message
from ai_forge.serving.deployment import LATEST, NAME, Deployment, FileStamp, read_deployment
from ai_forge.serving.llama_server import LlamaServer
from ai_forge.serving.runtime import (
    Completion,
    Endpoint,
    HeldModel,
    Progress,
    RenderedPrompt,
    RuntimeKind,
    silent,
    with_system,
)
from ai_forge.workspace import atomic_folder, atomic_write, file_sha256, require_disk

GGUF_FILE = "model.gguf"
RECORD_FILE = "deployment.json"
LATEST_FILE = "latest.txt"


@dataclass
class _Loaded:
    """A model in memory, and how many requests are reading from it. `is_current` ends when another takes its place."""

    deployment: Deployment
    server: LlamaServer
    n_users: int = 0
    is_current: bool = True


class EmbeddedRuntime:
    """Serves the models below `models_dir`; see `Runtime` for what each method promises."""

    kind: RuntimeKind = "embedded"

    def __init__(self, models_dir: Path, n_threads: int | None = None, n_slots: int = 1) -> None:
        self._dir = models_dir
        self._n_threads = n_threads
        self._n_slots = n_slots
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    def is_available(self) -> bool:
        """Whether llama.cpp can be imported here."""
        try:
            import xllamacpp  # noqa: F401
        except ImportError:
            return False
        return True

    def create(self, deployment: Deployment, progress: Progress = silent) -> None:
        """Check the file and link or copy it into the models folder."""
        progress("checking the model file", 0, 0)
        deployment.check_file()
        source = deployment.gguf_path
        size = source.stat().st_size
        self._dir.mkdir(parents=True, exist_ok=True)
        self._unload(deployment.model)
        with atomic_folder(self._folder(deployment.name, deployment.version)) as folder:
            progress("copying the model file", 0, size)
            try:
                os.link(source.resolve(), folder / GGUF_FILE)  # resolved: Linux would link a symbolic link itself
            except OSError:  # another disk, or one without hard links
                require_disk(self._dir, size, f"A copy of {source.name}")
                shutil.copyfile(source, folder / GGUF_FILE)
            _write(folder / RECORD_FILE, deployment, FileStamp.of(folder / GGUF_FILE))
            progress("copying the model file", size, size)

    def activate(self, name: str, version: str) -> None:
        """Point `name:latest` to `version`."""
        self._find(f"{name}:{version}")
        atomic_write(self._dir / name / LATEST_FILE, version)

    def active(self, name: str) -> str | None:
        """The version that `name:latest` means."""
        try:
            version = regular_bytes(self._dir / name / LATEST_FILE).decode().strip()
        except (OSError, ValueError):
            return None
        if not NAME.fullmatch(version):
            return None
        return version if (self._folder(name, version) / RECORD_FILE).is_file() else None

    def models(self) -> list[HeldModel]:
        """All versions of all models."""
        records = sorted(self._dir.glob(f"[!.]*/[!.]*/{RECORD_FILE}"))
        found = []
        for record in records:
            with contextlib.suppress(InputError):  # a damaged one is not served; deploying makes it again
                found.append(_held(_read(record)[0]))
        return found

    def is_whole(self, model: str) -> bool:
        """Whether record and file are there and as deployed; a file that was touched is hashed."""
        try:
            self._verify(self._find(model))
        except (InputError, PrerequisiteError):
            return False
        return True

    def show(self, model: str) -> HeldModel:
        """One model with its template, system text and parameters."""
        deployment = self._find(model)
        parameters = {key: str(value) for key, value in dataclasses.asdict(deployment.sampling).items()}
        return dataclasses.replace(
            _held(deployment),
            system_prompt=deployment.system_prompt,
            template=deployment.chat_template,
            parameters=parameters | {"stop": json.dumps(deployment.stop)},
        )

    def delete(self, model: str) -> None:
        """Remove a version, and `latest` where it meant this one."""
        name, _, version = model.partition(":")
        if not (NAME.fullmatch(name) and NAME.fullmatch(version)) or not self._folder(name, version).is_dir():
            return
        self._unload(model)
        if self.active(name) == version:
            (self._dir / name / LATEST_FILE).unlink()
        shutil.rmtree(self._folder(name, version))
        with contextlib.suppress(OSError):  # other versions are left
            (self._dir / name).rmdir()

    def chat(
        self,
        model: str,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer piece by piece."""
        with self._using(model) as (deployment, server):
            sampling = deployment.sampling
            options = {
                "n_predict": sampling.num_predict,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "stop": list(deployment.stop),
            }
            wanted = {"n_predict": max_tokens, "temperature": temperature, "seed": seed}
            options |= {key: value for key, value in wanted.items() if value is not None}
            yield from server.stream(server.render(with_system(messages, deployment.system_prompt)), options)

    def answers(self, model: str, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[Completion]:
        """Greedy answers, as many at once as there are slots."""
        with self._using(model) as (deployment, server):
            prompts = [server.render(with_system(chat, deployment.system_prompt)) for chat in chats]
            return server.completions(prompts, max_tokens, deployment.stop)

    def render(self, model: str, messages: Sequence[Message]) -> RenderedPrompt:
        """The prompt by the GGUF's own template, and its tokens as they are evaluated."""
        with self._using(model) as (deployment, server):
            text = server.render(with_system(messages, deployment.system_prompt))
            return RenderedPrompt(text, len(server.tokenize(text, add_special=True)))

    def greedy(self, model: str, prompt: str, max_tokens: int) -> Completion:
        """Continue `prompt` greedily."""
        with self._using(model) as (_, server):
            return server.greedy(prompt, max_tokens)

    def likely(self, model: str, prompt: str) -> None:
        """None: what it answers is what the exported file answered."""

    def tokenize(self, model: str, text: str) -> list[int]:
        """Token ids as llama.cpp makes them."""
        with self._using(model) as (_, server):
            return server.tokenize(text)

    @contextlib.contextmanager
    def endpoint(self, model: str) -> Iterator[Endpoint]:
        """The model's llama.cpp."""
        with self._using(model) as (deployment, server):
            yield Endpoint(server.address, server.headers, deployment.model)

    def close(self) -> None:
        """Free the loaded model at once; an answer that is on its way ends with `TransientError`."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
        # outside the lock: an answer that ends now takes it to count itself off
        if loaded is not None:
            loaded.is_current = False
            loaded.server.close()

    @contextlib.contextmanager
    def _using(self, model: str) -> Iterator[tuple[Deployment, LlamaServer]]:
        """The loaded model, which stays loaded while the block runs."""
        deployment = self._find(model)
        with self._lock:
            loaded = self._loaded
            if loaded is None or loaded.deployment != deployment:
                self._verify(deployment)  # first: where it fails, the loaded one goes on serving
                if loaded is not None:
                    loaded.is_current, self._loaded = False, None
                    if not loaded.n_users:
                        loaded.server.close()  # before the next is loaded: memory holds one
                num_ctx = deployment.sampling.num_ctx
                server = LlamaServer(
                    deployment.gguf_path, num_ctx, self._n_threads, self._n_slots, name=deployment.model
                )
                self._loaded = loaded = _Loaded(deployment, server)
            loaded.n_users += 1
        try:
            yield loaded.deployment, loaded.server
        finally:
            with self._lock:
                loaded.n_users -= 1
                is_left = not loaded.n_users and not loaded.is_current  # the last one out
            if is_left:
                loaded.server.close()

    def _verify(self, deployment: Deployment) -> None:
        """Raise unless the file is the one that was deployed."""
        if not deployment.gguf_path.is_file():
            raise PrerequisiteError(f"{deployment.gguf_path} is missing.", "deploy again: ai-forge deploy.")
        record = self._folder(deployment.name, deployment.version) / RECORD_FILE
        stamp = FileStamp.of(deployment.gguf_path)
        if _read(record)[1] == stamp:
            return
        if file_sha256(deployment.gguf_path) != deployment.gguf_sha256:
            raise InputError(
                f"{deployment.gguf_path} is not the file that {deployment.model} was deployed with: it was changed or damaged.",
                "make it again: ai-forge deploy.",
            )
        with contextlib.suppress(OSError):  # a folder that cannot be written: it is hashed next time as well
            _write(record, deployment, stamp)

    def _unload(self, model: str) -> None:
        if self._loaded is not None and self._loaded.deployment.model == model:
            self.close()

    def _folder(self, name: str, version: str) -> Path:
        return self._dir / name / version

    def _find(self, model: str) -> Deployment:
        name, _, tag = model.partition(":")
        version: str | None = tag
        if tag in ("", LATEST) and NAME.fullmatch(name):
            version = self.active(name)
        # both become folders: a name of another form must not lead out of the models folder
        if version and NAME.fullmatch(name) and NAME.fullmatch(version):
            record = self._folder(name, version) / RECORD_FILE
            if record.is_file():
                return _read(record)[0]
        known = ", ".join(served.model for served in self.models()) or "none"
        raise InputError(f"There is no deployed model {model!r}; there are: {known}.", "deploy one: ai-forge deploy.")


def _write(record: Path, deployment: Deployment, stamp: FileStamp) -> None:
    values = dataclasses.asdict(deployment) | {"gguf_path": str(deployment.gguf_path)}
    del values["asking"]  # the registry's to know, and it may change there
    atomic_write(record, json.dumps(sealed(values | {"stamp": dataclasses.asdict(stamp)}), indent=1))


def _read(record: Path) -> tuple[Deployment, FileStamp | None]:
    """What lies in a version's folder. The stamp is None where it was deployed before stamps were kept."""
    try:
        values = json.loads(regular_bytes(record))
        if not holds_what_was_written(values):
            raise ValueError("it is not what was written")
        values.pop(SEAL, None)
        stamp = values.pop("stamp", None)
        deployment = read_deployment(values | {"gguf_path": record.with_name(GGUF_FILE)})
        return deployment, FileStamp(**stamp) if stamp else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{record} is damaged: {str(error).splitlines()[0]}.", "make it again: ai-forge deploy."
        ) from error


def _held(deployment: Deployment) -> HeldModel:
    size = deployment.gguf_path.stat().st_size if deployment.gguf_path.is_file() else 0
    return HeldModel(deployment.model, size, deployment.gguf_sha256)
