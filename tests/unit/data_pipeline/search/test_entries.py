"""What stands beside the code: sections, configuration and commits, each with its place."""

import subprocess
from pathlib import Path

import pytest

from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.entries import Entry, block_entries, entries_beside_code, is_example_path
from ai_forge.data_pipeline.source.repository import read_repository

FILES = {
    "src/shop.py": '"""A shop."""\n\n\ndef sell(what: str) -> str:\n    """Sell a thing to someone."""\n    return what\n',
    "src/testing/tools.py": 'def fake_shop() -> str:\n    """A shop for those who test theirs."""\n    return "fake"\n',
    "src/till.rs": "pub fn pay(coins: u32) -> u32 {\n    coins + 1\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n"
    "    fn pays() {\n        assert_eq!(super::pay(1), 2);\n    }\n}\n",
    "tests/test_shop.py": "def test_sell() -> None:\n    assert sell('a') == 'a', 'nothing was sold'\n",
    "README.md": "# Shop\n\nSells things to people who want them.\n\n## Payment\n\nPay by card or in cash at the till.\n",
    "docs/guide.rst": "=====\nGuide\n=====\n\nHow to run a shop for a whole day.\n\nOpening\n=======\n\nUnlock the door and "
    "turn on the lights.\n\nClosing\n-------\n\nLock the door, count the money, go home.\n",
    "docs/stub.rst": "Changes\n=======\n\n.. include:: ../CHANGES\n",
    "docs/manual.adoc": "= Manual\n\nAll that a keeper of a shop must know.\n\n== Returns\n\nTake things back within "
    "thirty days of sale.\n",
    "pyproject.toml": '[project]\nname = "shop"\nrequires-python = ">=3.11"\ndependencies = ["till>=2"]\n',
    "Makefile": "test:\n\tpython -m pytest --quiet tests\n\nrelease:\n\tpython -m build\n",
    ".github/workflows/ci.yml": "jobs:\n  test:\n    runs-on: ubuntu\n    steps:\n      - run: make test\n",
    "package-lock.json": '{"lockfileVersion": 3, "packages": {"a": "b", "c": "d", "e": "f"}}\n',
    "deploy.yaml": "service: shop\npassword: hunter2xK9LmQ\nregion: somewhere\nreplicas: 2\nport: 80\n",
}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    root = tmp_path_factory.mktemp("shop")
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for command in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "Sell things\n\nPeople asked for a shop.\n\n"
         "Signed-off-by: A <a@b.c>"),
    ):  # fmt: skip
        subprocess.run(["git", "-C", str(root), *command], check=True)
    repository = read_repository(root)
    return [*block_entries(mine_repository(repository).documents), *entries_beside_code(repository)]


def named(entries: list[Entry], path: str) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries if entry.path == path}


def test_every_entry_cites_the_lines_that_it_holds(entries: list[Entry]) -> None:
    for entry in entries:
        if entry.kind != "commit" and "masked" not in entry.text:
            lines = FILES[entry.path].split("\n")[entry.first_line - 1 : entry.last_line]
            assert "\n".join(lines).strip("\n") == entry.text.strip("\n"), entry.citation


@pytest.mark.parametrize(
    ("path", "name", "words"),
    [
        ("README.md", "Shop › Payment", "Pay by card"),
        ("docs/guide.rst", "Guide", "whole day"),
        ("docs/guide.rst", "Guide › Opening", "Unlock"),
        ("docs/guide.rst", "Guide › Opening › Closing", "count the money"),
        ("docs/manual.adoc", "Manual › Returns", "thirty days"),
    ],
)
def test_sections_have_the_headings_above_them(entries: list[Entry], path: str, name: str, words: str) -> None:
    section = named(entries, path)[name]
    assert section.kind == "documentation"
    assert words in section.text


def test_kinds_of_code_tests_and_configuration(entries: list[Entry]) -> None:
    kinds = {(entry.path, entry.name): entry.kind for entry in entries}
    assert kinds["src/shop.py", "sell"] == "function"
    assert kinds["tests/test_shop.py", "test_sell"] == "test"
    assert kinds["src/testing/tools.py", "fake_shop"] == "function"
    assert (kinds["src/till.rs", "pay"], kinds["src/till.rs", "tests.pays"]) == ("function", "test")
    for path in ("pyproject.toml", "Makefile", ".github/workflows/ci.yml", "deploy.yaml"):
        assert {kind for (where, _), kind in kinds.items() if where == path} == {"configuration"}, path
    assert not named(entries, "package-lock.json")
    assert not named(entries, "docs/stub.rst")
    assert is_example_path("examples/a.py")
    assert not is_example_path("a/example.py")


def test_secrets_are_masked_beside_the_code_too(entries: list[Entry]) -> None:
    (deploy,) = named(entries, "deploy.yaml").values()
    assert "hunter2xK9LmQ" not in deploy.text
    assert "masked" in deploy.text


def test_a_commit_is_its_message_without_trailers(entries: list[Entry]) -> None:
    (commit,) = [entry for entry in entries if entry.kind == "commit"]
    assert commit.text == "Sell things\n\nPeople asked for a shop."
    assert commit.citation == commit.path
    assert commit.path == f"commit:{(commit.commit or '')[:12]}"


def test_a_long_section_and_a_long_file_are_cut_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(FILES["src/shop.py"])
    paragraphs = "\n\n".join(f"Paragraph {n} says what paragraph {n - 1} left out of it." for n in range(120))
    (tmp_path / "long.md").write_text(f"# Long\n\n{paragraphs}\n")
    (tmp_path / "long.yaml").write_text("".join(f"key{n}:\n  - value {n}\n  - other {n}\n" for n in range(200)))
    found = entries_beside_code(read_repository(tmp_path))
    for path, n_parts in (("long.md", 5), ("long.yaml", 10)):
        spans = sorted((e.first_line, e.last_line) for e in found if e.path == path)
        assert len(spans) >= n_parts
        held = {line for first, last in spans for line in range(first, last + 1)}
        lines = (tmp_path / path).read_text().split("\n")
        assert not [line for n, line in enumerate(lines, start=1) if line.strip() and n not in held]


def test_an_entry_survives_its_line_of_json() -> None:
    entry = Entry("a b.md", 1, 2, "x › y", "documentation", "markdown", "a\u2028b\x85c", blob_id="1")
    line = entry.to_json()
    assert Entry.from_json(line) == entry
    assert len(line.splitlines()) == 1
