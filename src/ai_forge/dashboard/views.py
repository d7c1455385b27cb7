"""What the pages show, read from the workspace: plain values, no HTML and no server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.workspace import Workspace

if TYPE_CHECKING:
    from ai_forge.serving.registry import Activation, Registry, Version

N_WORST = 20
N_BINS = 10


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelView(_View):
    """A deployed model: its active version, and how its repository moved on since."""

    name: str
    version: str
    runtime: str
    base: str
    since: str
    verdict: str | None
    changed: str | None


class DeploymentRow(_View):
    """A moment at which a version became the active one."""

    version: str
    when: str
    reason: str
    runtime: str
    verdict: str | None
    active: bool


class History(_View):
    """All deployments of a model, the newest first, and the version that a rollback returns to."""

    name: str
    rows: tuple[DeploymentRow, ...]
    rollback_to: str | None


class ExampleView(_View):
    """A training example to read. `quality` is 0 to 1; `problems` are what its check found."""

    id: str
    question: str
    answer: str
    family: str
    difficulty: str
    quality: float
    problems: tuple[str, ...]
    oracles: tuple[str, ...]
    dropped: bool


class QualityView(_View):
    """A run's training data: how good it is, and its worst examples. `histogram` holds (lower bound, examples, share)."""

    n_examples: int
    n_dropped: int
    mean: float | None
    histogram: tuple[tuple[float, int, float], ...]
    worst: tuple[ExampleView, ...]


def models_of(workspace: Workspace) -> list[ModelView]:
    """The deployed models by name."""
    from ai_forge.serving.registry import Registry
    from ai_forge.serving.served_model import changes_since

    views = []
    with Registry(workspace.registry_path) as registry:
        deployed = registry.deployed()
    for name, one in deployed.items():
        asking = one.version.deployment.asking
        changed = changes_since(asking.repository) if asking and asking.repository else None
        views.append(
            ModelView(
                name=name,
                version=one.activation.version,
                runtime=one.activation.runtime,
                base=one.version.deployment.base,
                since=one.activation.activated_at,
                verdict=_verdict(one.version),
                changed=changed,
            )
        )
    return views


def versions_of(workspace: Workspace) -> list[str]:
    """Every version that can be asked, as `name:version`, the newest first."""
    from ai_forge.serving.registry import Registry

    with Registry(workspace.registry_path) as registry:
        known = [version.deployment for version in registry.versions() if version.deployment.asking is not None]
    return [deployment.model for deployment in reversed(known)]


def histories_of(workspace: Workspace) -> list[History]:
    """The deployments of each model."""
    from ai_forge.serving.registry import Registry

    with Registry(workspace.registry_path) as registry:
        return [_history(registry, name) for name in _names(registry)]


def _history(registry: Registry, name: str) -> History:
    activations = registry.history(name)
    verdicts = {version.deployment.version: _verdict(version) for version in registry.versions(name)}
    rows = [_deployment_row(each, verdicts, each is activations[-1]) for each in reversed(activations)]
    previous = registry.previous(name)
    kept = previous is not None and previous.version in verdicts
    return History(name=name, rows=tuple(rows), rollback_to=previous.version if previous and kept else None)


def _deployment_row(activation: Activation, verdicts: dict[str, str | None], is_active: bool) -> DeploymentRow:
    return DeploymentRow(
        version=activation.version,
        when=activation.activated_at,
        reason=activation.reason,
        runtime=activation.runtime,
        verdict=verdicts.get(activation.version),
        active=is_active,
    )


def _names(registry: Registry) -> list[str]:
    return sorted({version.deployment.name for version in registry.versions()})


def _verdict(version: Version) -> str | None:
    verdict = version.metrics.get("verdict")
    return str(verdict) if verdict else None


def quality_of(dataset: Path, dropped: frozenset[str]) -> QualityView:
    """The training examples of a dataset folder, scored.

    Raises:
        InputError: its files cannot be read.
    """
    from ai_forge.data_pipeline.datasets.storage import read_examples
    from ai_forge.data_pipeline.examples.scoring import Scorer

    examples = read_examples(dataset / "train.jsonl")
    scorer = Scorer(examples)
    scores = [scorer.score(example) for example in examples]
    # by id where the quality is the same: the same data shows the same page
    order = sorted(range(len(examples)), key=lambda i: (scores[i].quality, examples[i].id))
    worst = []
    for i in order[:N_WORST]:
        example, score = examples[i], scores[i]
        worst.append(
            ExampleView(
                id=example.id,
                question=example.question,
                answer=example.target,
                family=example.family,
                difficulty=example.difficulty,
                quality=score.quality,
                problems=score.problems,
                oracles=tuple(document.citation for document in example.oracle_documents),
                dropped=example.id in dropped,
            )
        )
    return QualityView(
        n_examples=len(examples),
        n_dropped=len(dropped),
        mean=sum(score.quality for score in scores) / len(scores) if scores else None,
        histogram=_histogram([score.quality for score in scores]),
        worst=tuple(worst),
    )


def _histogram(values: Sequence[float]) -> tuple[tuple[float, int, float], ...]:
    counts = Counter(min(N_BINS - 1, int(value * N_BINS)) for value in values)
    largest = max(counts.values(), default=1)
    return tuple((low / N_BINS, counts[low], counts[low] / largest) for low in range(N_BINS))


class CodeView(_View):
    """A document that a model was shown: (line number, text) of its lines, without numbers for a commit's message."""

    citation: str
    note: str
    lines: tuple[tuple[int | None, str], ...]


def code_of(workspace: Workspace, model: str, document_id: str) -> CodeView:
    """A document out of a model's own index, so a page shows what the model was shown and nothing else of the machine.

    Raises:
        InputError: no such model, or no such document in its index.
    """
    from ai_forge.data_pipeline.search.question_index import read_entries
    from ai_forge.serving.registry import Registry

    name, _, wanted = model.partition(":")
    with Registry(workspace.registry_path) as registry:
        active = registry.active(name)
        version = registry.find(name, wanted or (active.version if active else ""))
    asking = version.deployment.asking if version else None
    if version is None or asking is None or asking.index_folder is None:
        raise InputError(f"{model} has no code to show.", "open a place that an answer cites.")
    entry = next((entry for entry in read_entries(asking.index_folder) if entry.id == document_id), None)
    if entry is None:
        raise InputError(f"The index of {model} has no document {document_id}.", "open a place that an answer cites.")
    is_commit = entry.kind == "commit"
    numbered = [(None if is_commit else entry.first_line + i, line) for i, line in enumerate(entry.text.split("\n"))]
    note = f"{entry.name}, as {version.deployment.model} was trained on it"
    return CodeView(citation=entry.citation, note=note, lines=tuple(numbered))


def curve_of(losses: Sequence[tuple[int, float]], held_out: Sequence[tuple[int, float]]) -> JsonObject:
    """The two curves as the page's script takes them."""
    return {"losses": list(losses), "held_out": list(held_out)}
