"""Real git repositories for the guardian, with dates, and models that count as trained on a state of them."""

import datetime
import os
import subprocess
from pathlib import Path

from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.entries import block_entries, entries_beside_code
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.pipeline.identity import model_name_for
from ai_forge.serving.deployment import AskSettings, Deployment, RepositoryRef, Sampling
from ai_forge.serving.registry import Registry
from ai_forge.workspace import Workspace

FIRST_DAY = datetime.datetime(2026, 3, 2, 9, tzinfo=datetime.UTC)


def git(repo: Path, *words: str, at: datetime.datetime | None = None) -> str:
    """A git command as a person types it, with a name and a date."""
    when = (at or FIRST_DAY).isoformat()
    names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in PERSON.items()}
    environment = os.environ | names | {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when, "HOME": str(repo.parent)}
    command = ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-C", str(repo), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PERSON = {"NAME": "A", "EMAIL": "a@example.org"}


def function(name: str, number: int = 0) -> str:
    """A small documented module."""
    return (
        f'def {name}(value: int) -> int:\n    """Add {number} to the value and double what comes of it."""\n'
        f"    changed = value + {number}\n    if changed < 0:\n        raise ValueError(changed)\n    return changed * 2\n"
    )


def write(repo: Path, *names: str, number: int = 0) -> None:
    for name in names:
        path = repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(function(f"f_{path.stem}", number))


def commit(repo: Path, message: str = "work", at: datetime.datetime | None = None) -> str:
    """Everything that lies there, committed."""
    git(repo, "add", "-A")
    git(repo, "commit", "--allow-empty", "-m", message, at=at)
    return git(repo, "rev-parse", "HEAD")


def repository(folder: Path, n_files: int = 30) -> Path:
    """A repository of one commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    write(folder, *(f"src/m{index}.py" for index in range(n_files)))
    commit(folder, "first")
    return folder


def train(
    repo: Path, workspace: Workspace, version: str = "v1", *, at: datetime.datetime = FIRST_DAY, with_index: bool = True
) -> None:
    """A version of the repository's model in the registry, as a deployment leaves it; nothing is trained."""
    read = read_repository(repo)
    model = model_name_for(read.root, read.name, "", workspace)
    index = workspace.served_dir / model / version / "index"
    if with_index:
        entries = [*block_entries(mine_repository(read).documents), *entries_beside_code(read)]
        QuestionIndex.build(entries).save(index)
    deployment = Deployment(
        name=model,
        version=version,
        gguf_path=workspace.root / "model.gguf",
        gguf_sha256="0" * 64,
        chat_template="{{ messages }}",
        stop=(),
        system_prompt="",
        sampling=Sampling(num_ctx=512, num_predict=16, temperature=0.0, top_k=40, top_p=0.9),
        base="tiny",
        created_at=at.isoformat(),
        asking=AskSettings(
            index_folder=index, repository=RepositoryRef(path=read.root, name=read.name, commit=read.commit)
        ),
    )
    with Registry(workspace.registry_path) as registry:
        registry.register(deployment)
        registry.activate(model, version, "embedded")
