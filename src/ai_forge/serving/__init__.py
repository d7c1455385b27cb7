"""Serving: two runtimes behind one interface, the registry of versions, deployment and rollback.

    deployment ─► deployer ─► runtime: ollama_runtime (HTTP) or embedded_runtime (llama.cpp in this process)
                     └──────► registry: versions, which one is active, history

`choosing` picks the runtime. The exports are loaded on first use; xllamacpp only when a model is loaded.
"""

from typing import TYPE_CHECKING

from ai_forge.lazy import lazy_exports

if TYPE_CHECKING:
    from ai_forge.serving.choosing import choose_runtime
    from ai_forge.serving.deployer import Deployed, ExpectedAnswer, deploy, prune, rollback
    from ai_forge.serving.deployment import (
        AskSettings,
        Deployment,
        RepositoryRef,
        RetrievalSettings,
        Sampling,
        deployment_from_gguf,
    )
    from ai_forge.serving.embedded_runtime import EmbeddedRuntime
    from ai_forge.serving.llama_server import LlamaServer
    from ai_forge.serving.ollama_runtime import OllamaRuntime, modelfile_for
    from ai_forge.serving.registry import Activation, Registry, Version
    from ai_forge.serving.runtime import (
        Completion,
        Endpoint,
        HeldModel,
        RenderedPrompt,
        Runtime,
        prompt_difference,
        with_system,
    )

_HOMES = {
    "choose_runtime": "choosing",
    "Deployed": "deployer",
    "ExpectedAnswer": "deployer",
    "deploy": "deployer",
    "prune": "deployer",
    "rollback": "deployer",
    "AskSettings": "deployment",
    "Deployment": "deployment",
    "RepositoryRef": "deployment",
    "RetrievalSettings": "deployment",
    "Sampling": "deployment",
    "deployment_from_gguf": "deployment",
    "EmbeddedRuntime": "embedded_runtime",
    "LlamaServer": "llama_server",
    "modelfile_for": "ollama_runtime",
    "OllamaRuntime": "ollama_runtime",
    "Activation": "registry",
    "Registry": "registry",
    "Version": "registry",
    "Completion": "runtime",
    "Endpoint": "runtime",
    "HeldModel": "runtime",
    "RenderedPrompt": "runtime",
    "Runtime": "runtime",
    "prompt_difference": "runtime",
    "with_system": "runtime",
}

__all__ = [
    "Activation",
    "AskSettings",
    "Completion",
    "Deployed",
    "Deployment",
    "EmbeddedRuntime",
    "Endpoint",
    "ExpectedAnswer",
    "HeldModel",
    "LlamaServer",
    "OllamaRuntime",
    "Registry",
    "RenderedPrompt",
    "RepositoryRef",
    "RetrievalSettings",
    "Runtime",
    "Sampling",
    "Version",
    "choose_runtime",
    "deploy",
    "deployment_from_gguf",
    "modelfile_for",
    "prompt_difference",
    "prune",
    "rollback",
    "with_system",
]

__getattr__ = lazy_exports(__name__, _HOMES)
