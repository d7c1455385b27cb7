"""The deployed model of a repository: put a run's model into a runtime, ask it, go back to the version before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ai_forge import conductor
from ai_forge.data_pipeline.schemas import Document
from ai_forge.errors import InputError, RefusedError
from ai_forge.events import StageProgress
from ai_forge.prompting.prompt import Message, citations_in
from ai_forge.workspace import atomic_write

if TYPE_CHECKING:
    from ai_forge.conductor import Activation, Deployed, Deployment, Runtime
    from ai_forge.pipeline.repository import Pipeline


class Reply:
    """An answer on its way: iterate over the pieces once, then read `text` and `cited`."""

    def __init__(
        self, model: str, kind: str, documents: Sequence[Document], runtime: Runtime, messages: Sequence[Message]
    ) -> None:
        self.model = model
        self.runtime_kind = kind
        self.documents = tuple(documents)
        self.text = ""
        self._runtime = runtime
        self._messages = messages

    def __iter__(self) -> Iterator[str]:
        try:
            for piece in self._runtime.chat(self.model, self._messages):
                self.text += piece
                yield piece
        finally:
            self._runtime.close()

    @property
    def cited(self) -> list[Document]:
        """The shown documents that the answer cites."""
        named = citations_in(self.text)
        return [document for document in self.documents if document.citation in named]

    @property
    def invented(self) -> list[str]:
        """Citations of the answer that name nothing it was shown."""
        shown = {document.citation for document in self.documents}
        return [citation for citation in citations_in(self.text) if citation not in shown]


def require_runtime(pipeline: Pipeline) -> None:
    """Find out before training that the deployment to come has nowhere to go.

    Raises:
        PrerequisiteError: the runtime that was asked for by name is not there.
        InputError: the context asked for is longer than the base's.
    """
    settings = pipeline.settings.runtime
    if settings.num_ctx > pipeline.base.context_length > 0:
        raise InputError(
            f"runtime.num_ctx is {settings.num_ctx}; {pipeline.base.name} was made for at most {pipeline.base.context_length}.",
            f"add --set runtime.num_ctx={pipeline.base.context_length}.",
        )
    conductor.choose_runtime(settings, pipeline.workspace).close()


def deployment_of(pipeline: Pipeline) -> Deployment:
    """What is deployed."""
    return conductor.deployment_from_gguf(
        pipeline.model_name,
        pipeline.run_id,
        pipeline.gguf,
        system_prompt=pipeline.system_prompt,
        settings=pipeline.settings.runtime,
        base=pipeline.base.name,
    )


def write_modelfile(pipeline: Pipeline) -> Path:
    """`Modelfile` in the run's folder, for `ollama create` by hand.

    Raises:
        InputError: Ollama cannot follow the base's chat template.
    """
    path = pipeline.run_folder / "Modelfile"
    atomic_write(path, conductor.modelfile_for(deployment_of(pipeline)))
    return path


def deploy(pipeline: Pipeline) -> Deployed:
    """Make the exported model the active version in the runtime, checked there, or leave everything as it was.

    Raises:
        RefusedError: parity fails, or the runtime makes another prompt than the trainer.
    """
    pipeline.parity_result.require()
    with closing(conductor.choose_runtime(pipeline.settings.runtime, pipeline.workspace)) as runtime:
        deployment = deployment_of(pipeline)
        with (
            pipeline.workspace.lock("deploy"),
            conductor.Registry(pipeline.workspace.registry_path) as registry,
            pipeline.told("deploy") as tell,
        ):
            deployed = conductor.deploy(
                deployment,
                runtime,
                registry,
                check=lambda runtime, deployment: check_served(pipeline, runtime, deployment),
                metrics={"verdict": pipeline.verdict.headline, "better": pipeline.verdict.better},
                keep=pipeline.settings.runtime.keep_versions,
                progress=lambda what, done, total: pipeline.emit(StageProgress("deploy", done, total, what)),
            )
            tell({"model": deployment.model, "runtime": runtime.kind, "cached": not deployed.changed})
    return deployed


def rollback(pipeline: Pipeline) -> Activation:
    """Return to the version that the active one replaced.

    Raises:
        InputError, RefusedError: there is none.
    """
    with pipeline.workspace.lock("deploy"), conductor.Registry(pipeline.workspace.registry_path) as registry:
        target = registry.rollback_target(pipeline.model_name)
        settings = pipeline.settings.runtime.model_copy(update={"kind": target.runtime})
        with closing(conductor.choose_runtime(settings, pipeline.workspace)) as runtime:
            return conductor.rollback(pipeline.model_name, runtime, registry)


def check_served(pipeline: Pipeline, runtime: Runtime, deployment: Deployment) -> None:
    """Ask the new version in its runtime: the prompt it makes must be the trainer's, and it must answer.

    Raises:
        RefusedError: it is not.
    """
    tokenizer = pipeline.tokenizer
    for chat in pipeline.parity_chats()[:2]:
        text = tokenizer.render(chat)
        difference = conductor.prompt_difference(
            runtime.render(deployment.model, chat), text, len(tokenizer.encode(text))
        )
        if difference:
            raise RefusedError(
                f"{deployment.model} is asked in another form than it was trained in: {difference}.",
                f"report this with the base's name ({pipeline.base.name}); the version before stays active.",
            )
    if not "".join(runtime.chat(deployment.model, chat, max_tokens=8)).strip():
        raise RefusedError(f"{deployment.model} answers nothing.", "the version before stays active.")


def ask(pipeline: Pipeline, question: str, history: Sequence[Message] = ()) -> Reply:
    """Ask the active model, with what the retriever finds for `question` where it is about code.

    Raises:
        InputError: no version of this repository's model is deployed.
    """
    with conductor.Registry(pipeline.workspace.registry_path) as registry:
        active = registry.active(pipeline.model_name)
    if active is None:
        raise InputError(
            f"No model {pipeline.model_name} is deployed.",
            f"run `ai-forge run {pipeline.path}{f' --recipe {pipeline.recipe}' if pipeline.recipe else ''}` first.",
        )
    settings = pipeline.settings.runtime.model_copy(update={"kind": active.runtime})
    runtime = conductor.choose_runtime(settings, pipeline.workspace)
    messages, documents = pipeline.chat_about(question)
    chat = [*messages[:-1], *history, *messages[-1:]]
    return Reply(f"{pipeline.model_name}:{active.version}", active.runtime, documents, runtime, chat)
