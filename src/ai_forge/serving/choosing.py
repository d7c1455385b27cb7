"""Which runtime serves: the one that is asked for, by default Ollama where it answers, else the embedded llama.cpp.

Ollama is started only where it was asked for by name: "auto" takes the machine as it is and never starts a service.
"""

from ai_forge.config.settings import RuntimeSettings
from ai_forge.errors import PrerequisiteError
from ai_forge.serving.embedded_runtime import EmbeddedRuntime
from ai_forge.serving.ollama_runtime import OllamaRuntime
from ai_forge.serving.runtime import Runtime
from ai_forge.workspace import Workspace

MODELS_DIR = "models"
OLLAMA_LOG = "ollama.log"


def choose_runtime(settings: RuntimeSettings, workspace: Workspace, *, may_start: bool = True) -> Runtime:
    """The runtime for `settings.kind`. With "ollama" and `may_start`, an Ollama on this machine is started if need be.

    To ask a version that is deployed already, set `kind` to the runtime of its activation.

    Raises:
        PrerequisiteError: the runtime that was asked for is not there; the message says what to do.
        InputError: `ollama_host` is no address.
    """
    if settings.kind != "embedded":
        ollama = OllamaRuntime(settings.ollama_host)
        try:
            if ollama.is_available():
                return ollama
            if settings.kind == "ollama":
                status = ollama.server.status()
                if may_start and not status.running and "not Ollama" not in (status.problem or ""):
                    ollama.server.start(workspace.root / OLLAMA_LOG)
                ollama.server.require()
                return ollama
        except BaseException:
            ollama.close()
            raise
        ollama.close()
    embedded = EmbeddedRuntime(workspace.root / MODELS_DIR, n_slots=settings.slots)
    if not embedded.is_available():
        raise PrerequisiteError(
            "No Ollama answers and llama.cpp (xllamacpp) cannot be imported.", "install it: pip install xllamacpp."
        )
    return embedded
