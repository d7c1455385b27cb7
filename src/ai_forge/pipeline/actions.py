"""What is done with a finished run: deploy its model, write its Modelfile, go back to the version before.

Everything slow comes first (judging, comparing, hashing); the lock of the model is held only while the runtime and the
registry change. So another model can be deployed or rolled back meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ai_forge import serving
from ai_forge.data_pipeline.handbook.persona import persona_file, read_persona
from ai_forge.errors import InputError, RefusedError
from ai_forge.events import StageProgress
from ai_forge.pipeline.stages.evaluate import JudgedSummary
from ai_forge.pipeline.stages.export import gguf_of
from ai_forge.pipeline.stages.merge import merged_folder
from ai_forge.pipeline.stages.parity import chats_of, parity_of
from ai_forge.pipeline.stages.report import ReportSummary
from ai_forge.pipeline.stages.train import adapter_stage
from ai_forge.serving.deployer import ExpectedAnswer
from ai_forge.serving.deployment import check_name
from ai_forge.workspace import MANIFEST, Workspace, atomic_folder, atomic_write, link_or_copy

if TYPE_CHECKING:
    from ai_forge.config.settings import RuntimeSettings
    from ai_forge.data_pipeline.handbook.persona import Persona
    from ai_forge.pipeline.run import Run
    from ai_forge.pipeline.runner import Runner
    from ai_forge.serving import Activation, AskSettings, Deployed, Deployment, Runtime
    from ai_forge.training.forge import TrainingPlan

PROMPT_VERSION = 1
ALSO = ("safetensors", "adapter")
# chats that the deployed model is asked before it becomes active: each costs seconds, and one wrong template shows in all
N_CHECKED = 2
N_HELD_TO = 4  # chats whose answers must begin as the trainer's
WAIT_FOR_MODEL_S = 60.0  # for another deployment or rollback of the same model


def require_runtime(runner: Runner) -> None:
    """Find out before training that the deployment to come has nowhere to go.

    Raises:
        PrerequisiteError: the runtime that was asked for by name is not there.
        InputError: the context asked for is longer than the base's.
    """
    settings, base = runner.run.settings.runtime, runner.opened.base
    if settings.num_ctx > base.context_length > 0:  # 0: the base does not say
        raise InputError(
            f"runtime.num_ctx is {settings.num_ctx}; {base.name} was made for at most {base.context_length}.",
            f"add --set runtime.num_ctx={base.context_length}.",
        )
    serving.choose_runtime(settings, runner.workspace).close()


def deployment_of(runner: Runner) -> Deployment:
    """What is deployed of a run that is exported."""
    run = runner.run
    persona = persona_of(run)
    if persona is None:
        system = runner.recipe.system_prompt(run.settings, runner.outputs())
    else:
        system = persona.system
    made = serving.deployment_from_gguf(
        run.model,
        run.id,
        gguf_of(run, runner.outputs()),
        system_prompt=system,
        settings=run.settings.runtime,
        base=runner.opened.base.name,
        asking=_asking(runner),
    )
    if persona is None:
        return made
    # the base's own stop words stay: without its end of turn an answer would run on
    return dataclasses.replace(made, stop=tuple(dict.fromkeys((*made.stop, *persona.stop))))


def persona_of(run: Run) -> Persona | None:
    """Who the model is when it is served: of the file that is set, or for a handbook the one that comes for its name.

    Raises:
        InputError: the file is none.
    """
    chosen = run.settings.runtime.persona
    if chosen is not None:
        return read_persona(Path(chosen))
    file = persona_file(run.model) if run.recipe == "handbook" else None
    return read_persona(file) if file else None


def _asking(runner: Runner) -> AskSettings:
    run, settings = runner.run, runner.run.settings
    index = shown = None
    if runner.recipe.has_index:
        index = runner.workspace.served_dir / run.model / run.id / "index"
        k, max_tokens = settings.judge.retrieved_documents, settings.synthesis.max_context_tokens
        shown = serving.RetrievalSettings(k=k, max_tokens=max_tokens)
    return serving.AskSettings(
        kind=run.recipe,
        prompt_version=PROMPT_VERSION,
        index_folder=index,
        retrieval=shown,
        repository=serving.RepositoryRef(path=run.repository, name=run.repository_name, commit=run.commit),
    )


def _keep_index(runner: Runner, deployment: Deployment) -> None:
    """Give the version an index of its own, by links: the cache may be cleaned while the version is served."""
    if deployment.asking is None or deployment.asking.index_folder is None:
        return
    target = deployment.asking.index_folder
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        runner.outputs().folder("index"), target, copy_function=lambda old, new: link_or_copy(Path(old), Path(new))
    )


def write_modelfile(runner: Runner) -> Path:
    """`Modelfile` in the run's folder, for `ollama create` by hand.

    Raises:
        InputError: Ollama cannot follow the base's chat template.
    """
    path = runner.folder / "Modelfile"
    atomic_write(path, serving.modelfile_for(deployment_of(runner)))
    return path


def write_also(runner: Runner, kinds: Sequence[str]) -> dict[str, Path]:
    """The merged weights ("safetensors") and the adapter in PEFT's format ("adapter") as folders of the run, for other tools.

    Raises:
        InputError: another kind.
    """
    for kind in kinds:
        if kind not in ALSO:
            raise InputError(f"{kind!r} is not exported.", f"name one of {', '.join(ALSO)}, with commas between.")
    runner.run_until("merge")
    outputs = runner.outputs()
    sources = {"safetensors": merged_folder(outputs), "adapter": outputs.folder(adapter_stage(outputs))}
    written = {}
    for kind in kinds:
        source, target = sources[kind], runner.folder / "exported" / kind  # `adapter` alone is the link to the cache
        with atomic_folder(target) as folder:
            for file in source.iterdir():
                if file.is_file() and file.name != MANIFEST:
                    link_or_copy(file, folder / file.name)
        written[kind] = target
    return written


def deploy(runner: Runner) -> Deployed:
    """Make the exported model the active version in the runtime, checked there, or leave everything as it was.

    Raises:
        RefusedError: parity fails, or the runtime makes another prompt than the trainer.
    """
    report = runner.run_until("report").summary
    assert isinstance(report, ReportSummary)
    parity_of(runner.outputs()).require()
    run, settings = runner.run, runner.run.settings.runtime
    deployment = deployment_of(runner)
    with (
        closing(serving.choose_runtime(settings, runner.workspace)) as runtime,
        runner.reporting("deploy") as ending,
        runner.workspace.lock(f"model-{run.model}", wait_s=WAIT_FOR_MODEL_S, check=runner.cancel.check),
        serving.Registry(runner.workspace.registry_path) as registry,
    ):
        _keep_index(runner, deployment)  # before it is active: no version is ever served without its index
        deployed = serving.deploy(
            deployment,
            runtime,
            registry,
            check=lambda runtime, deployment: check_served(runner, runtime, deployment),
            expected=expected_answers(runner),
            metrics={"verdict": report.headline, "better": report.better},
            keep=settings.keep_versions,
            progress=lambda what, done, total: runner.emit(StageProgress("deploy", done, total, what)),
        )
        ending.counts = {"model": deployment.model, "runtime": runtime.kind}
        ending.text = f"{deployment.model}, {runtime.kind}"
        ending.cached = not deployed.changed
        for version in deployed.removed:
            shutil.rmtree(runner.workspace.served_dir / run.model / version, ignore_errors=True)
    return deployed


def expected_answers(runner: Runner) -> list[ExpectedAnswer]:
    """How the deployed file began to answer a few of the chats when it was compared with the trainer."""
    tokenizer, outputs = runner.opened.tokenizer, runner.outputs()
    pairs = zip(chats_of(outputs)[:N_HELD_TO], parity_of(outputs).answers, strict=False)
    return [ExpectedAnswer(tokenizer.render(chat), tokenizer.decode(answer)) for chat, answer in pairs]


def check_served(runner: Runner, runtime: Runtime, deployment: Deployment) -> None:
    """Ask the new version in its runtime: the prompt it makes must be the trainer's, and it must answer.

    Raises:
        RefusedError: it is not.
    """
    tokenizer = runner.opened.tokenizer
    chats = [serving.with_system(chat, deployment.system_prompt) for chat in chats_of(runner.outputs())[:N_CHECKED]]
    for chat in chats:
        text = tokenizer.render(chat)
        rendered = runtime.render(deployment.model, chat)
        difference = serving.prompt_difference(rendered, text, len(tokenizer.encode(text)))
        if difference:
            raise RefusedError(
                f"{deployment.model} is asked in another form than it was trained in: {difference}.",
                f"report this with the base's name ({runner.opened.base.name}); the version before stays active.",
            )
    stops = runtime.show(deployment.model).parameters.get("stop", "")
    # runtimes tell them quoted
    missing = [word for word in deployment.stop if json.dumps(word, ensure_ascii=False)[1:-1] not in stops]
    if missing:
        raise RefusedError(
            f"{deployment.model} would not stop at {', '.join(map(repr, missing))}: its stop words are {stops or 'none'}.",
            "the version before stays active.",
        )
    answers = ("".join(runtime.chat(deployment.model, chat, max_tokens=32)) for chat in chats)
    if not any(answer.strip() for answer in answers):
        raise RefusedError(f"{deployment.model} answers nothing.", "the version before stays active.")


def rollback(model: str, settings: RuntimeSettings, workspace: Workspace) -> Activation:
    """Return to the version that the active one of `model` replaced.

    Raises:
        InputError, RefusedError: there is none.
    """
    check_name(model)  # before it becomes part of a lock's path
    with (
        workspace.lock(f"model-{model}", wait_s=WAIT_FOR_MODEL_S),
        serving.Registry(workspace.registry_path) as registry,
    ):
        target = registry.rollback_target(model)
        # the version goes back to the runtime that it was deployed in, whatever is set by now
        chosen = settings.model_copy(update={"kind": target.runtime})
        with closing(serving.choose_runtime(chosen, workspace)) as runtime:
            return serving.rollback(model, runtime, registry)


# -- beside the stages --------------------------------------------------------------------------------------------------


def first_question(runner: Runner) -> str:
    """What a freshly deployed model is asked first: one of the questions that it was judged on."""
    summary = runner.run_until("evaluate").summary
    assert isinstance(summary, JudgedSummary)
    return summary.first_question


def plan_training(runner: Runner) -> TrainingPlan | None:
    """Counts, tokens, memory and time of a training, measured on this machine, without training; None where the recipe
    cannot tell.

    Raises:
        PrerequisiteError: disk or memory will not do.
    """
    measure = runner.recipe.plan_training
    if measure is None:
        return None
    with runner:
        runner.run_until("dataset")
        with runner.reporting("plan") as ending:
            plan = measure(runner.context("train", runner.folder))
            ending.counts, ending.text = {"steps": plan.n_steps}, f"{plan.n_steps} steps"
    return plan


LINKED = {"dataset": "dataset", "model": "merge", "gguf": "export", "evaluation": "evaluate", "report": "report"}


def link_results(runner: Runner) -> None:
    """Links in the run's folder to what its stages made, and the report itself beside them."""
    outputs = runner.outputs()
    for name, stage in (LINKED | {"adapter": adapter_stage(outputs)}).items():
        source = outputs.folder(stage)
        link = runner.folder / name
        if link.is_symlink() or link.is_file():
            link.unlink()
        link.symlink_to(os.path.relpath(source, runner.folder))  # relative: the workspace may be moved
        if name == "report":
            shutil.copytree(source, runner.folder, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)
