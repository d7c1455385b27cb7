"""More than a thousand inputs that try to crash the miner, to lead it outside its folder, or to run something."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_forge.config import MinerSettings, SplitSettings, SynthesisSettings
from ai_forge.data_pipeline import MiningResult, Repository, mine_repository, read_repository, split_by_file, synthesize
from ai_forge.data_pipeline.languages import LANGUAGES
from ai_forge.errors import InputError
from conftest import git
from hostile_inputs import HOSTILE_CONFIG, OUTSIDE, SENTINEL, SOUND, index_with, plant, write


def trap_in(folder: Path) -> Path:
    """A program that leaves a trace."""
    trap = folder / "trap.sh"
    trap.write_text(f'#!/bin/sh\necho ran >> "{folder}/ran"\nexit 0\n')
    trap.chmod(0o755)
    return trap


def assert_harmless(result: MiningResult, folder: Path) -> None:
    assert not (folder / "ran").exists()
    assert not list(folder.rglob("ran"))
    for block in result.documents:
        dumped = block.model_dump_json()
        assert SENTINEL not in dumped, block.citation
        assert "root:x:0" not in dumped


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("hostile")
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text(OUTSIDE)
    (outside / "LICENSE").write_text(f"GNU AFFERO GENERAL PUBLIC LICENSE {SENTINEL}")
    root = folder / "repo"
    root.mkdir()
    count = plant(root, outside)
    yield root, count
    (root / "special" / "closed").chmod(0o700)


def check(root: Path, count: int) -> tuple[Repository, MiningResult]:
    began = time.process_time()
    repository = read_repository(root)
    result = mine_repository(repository, MinerSettings(require_docstring=False))
    spent = time.process_time() - began
    assert_harmless(result, root.parent)
    assert result.n_files + result.skipped.total() >= 0.95 * count, "each input is a file or counted"
    assert {f"sound_{n}" for n in (1, 9001, 9002)} <= {block.name for block in result.documents}
    assert result.skipped["symlink"] >= 60
    print(f"{count} inputs in {spent:.1f} s CPU: {result.summary()}")
    return repository, result


@pytest.mark.slow
def test_a_folder_of_hostile_inputs_to_examples(planted: tuple[Path, int]) -> None:
    root, count = planted
    assert count >= 1000
    repository, result = check(root, count)
    assert not repository.is_git
    odd = [block for block in result.blocks if block.path.startswith("names/")]
    began = time.process_time()
    split = split_by_file(odd, SplitSettings(), documents=odd)
    made = synthesize(split.train, documents=split.train_documents, settings=SynthesisSettings(max_examples=60))
    assert made.examples
    print(f"{len(made.examples)} examples of {len(odd)} blocks: {time.process_time() - began:.1f} s CPU")


@pytest.mark.slow
def test_the_same_as_a_git_repository_with_hooks(planted: tuple[Path, int]) -> None:
    root, count = planted
    trap = trap_in(root.parent)
    git(root, "init", "-q")
    git(root, "config", "core.precomposeUnicode", "false")
    git(root, "add", "--ignore-errors", "--", "names", "links", *LANGUAGES)
    git(root, "add", "--", "special/folder.py")
    for hook in ("post-checkout", "pre-commit", "post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (root / ".git" / "hooks" / hook).write_bytes(trap.read_bytes())
        (root / ".git" / "hooks" / hook).chmod(0o755)
    assert check(root, count - 8)[0].is_git


def assert_harmless_or_refused(root: Path, folder: Path) -> None:
    try:
        repository = read_repository(root)
    except InputError as error:
        assert "Git cannot read" in str(error) or "holds no files" in str(error)  # noqa: PT017
        return
    assert_harmless(mine_repository(repository), folder)


def test_hostile_git_configuration_runs_nothing(tmp_path: Path) -> None:
    trap = trap_in(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.py").write_text(OUTSIDE)
    (tmp_path / "outside" / "a.py").write_text(OUTSIDE)
    root = tmp_path / "repo"
    write(root, "a.py", SOUND.format(n=1).encode())
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    write(root, ".gitattributes", b"* filter=x diff=x merge=x text eol=crlf working-tree-encoding=UTF-16\n")
    config = root / ".git" / "config"
    good = config.read_text()
    settings = [line for line in HOSTILE_CONFIG.replace("\n", "|").split("|") if line]
    assert len(settings) > 40
    for setting in [*settings, "everything"]:
        lines = settings if setting == "everything" else [setting]
        text = good
        for line in lines:
            key, _, value = line.partition("=")
            section, _, name = key.rpartition(".")
            top, _, inner = section.partition(".")
            value = value.replace("TRAP", str(trap)).replace("FOLDER", str(tmp_path))
            text += f'[{top}{f" {chr(34)}{inner}{chr(34)}" if inner else ""}]\n\t{name} = "{value}"\n'
        config.write_text(text)
        try:
            result = mine_repository(read_repository(root))
        except InputError as error:
            assert "Git cannot read" in str(error), setting  # noqa: PT017
            assert not (tmp_path / "ran").exists(), setting
            continue
        assert_harmless(result, tmp_path)
        assert [block.name for block in result.documents] == ["sound_1"], setting


def test_an_index_that_names_files_outside_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text(OUTSIDE)
    (tmp_path / "LICENSE").write_text(OUTSIDE)
    root = tmp_path / "repo"
    write(root, "pkg/a.py", SOUND.format(n=1).encode())
    git(root, "init", "-q")
    inside = str(tmp_path / "secret.py").encode()
    bad = [
        b"../secret.py",
        inside,
        b"pkg/../../secret.py",
        b".git/hooks/x.py",
        b"pkg//a.py",
        b"",
        b".",
        b"../LICENSE",
        b"./pkg/a.py",
    ]
    for names_in_index in ([b"pkg/a.py", *bad], *([b"pkg/a.py", name] for name in bad)):
        (root / ".git" / "index").write_bytes(index_with(names_in_index))
        assert_harmless_or_refused(root, tmp_path)
    for broken in (b"", b"DIRC", b"x" * 100, index_with([b"pkg/a.py"])[:-5]):
        (root / ".git" / "index").write_bytes(broken)
        assert_harmless_or_refused(root, tmp_path)
