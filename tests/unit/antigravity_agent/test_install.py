"""What is installed for agents is valid by their tools' rules, changes nothing the second time, and goes without a trace."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ai_forge.antigravity_agent.install import RECORD, install, read_skills, skill_name, uninstall
from ai_forge.errors import InputError

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


def test_each_skill_is_valid_by_the_published_rules(tmp_path: Path) -> None:
    install(tmp_path)
    files = [*tmp_path.glob(".agents/skills/*/SKILL.md"), *tmp_path.glob(".claude/skills/*/SKILL.md")]
    assert len(files) == 2 * len(read_skills()) == 12
    for file in files:
        _, head, body = file.read_text().split("---\n", 2)
        front = yaml.safe_load(head)
        assert front["name"] == file.parent.name
        assert NAME.fullmatch(front["name"])
        assert len(front["name"]) <= 64
        assert 0 < len(front["description"]) <= 1024
        assert body.count("\n") < 500


def test_workflows_have_a_description_and_fit(tmp_path: Path) -> None:
    install(tmp_path)
    workflows = list((tmp_path / ".agents" / "workflows").glob("*.md"))
    assert {file.stem for file in workflows} == {"forge-retrain", "forge-rollback"}
    for file in workflows:
        assert yaml.safe_load(file.read_text().split("---\n")[1])["description"]
        assert len(file.read_text()) < 12_000


@pytest.mark.parametrize("path", [".mcp.json", ".cursor/mcp.json", ".agents/mcp_config.json"])
def test_mcp_entries_name_a_command_that_there_is(tmp_path: Path, path: str) -> None:
    install(tmp_path)
    assert json.loads((tmp_path / path).read_text())["mcpServers"]["ai-forge"] == {
        "command": "ai-forge",
        "args": ["mcp"],
    }


def test_a_second_installation_changes_nothing(tmp_path: Path) -> None:
    assert install(tmp_path)
    before = tree(tmp_path)
    assert install(tmp_path) == []
    assert tree(tmp_path) == before


def test_a_fresh_repository_is_restored_exactly(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = tree(tmp_path)
    install(tmp_path)
    uninstall(tmp_path)
    assert tree(tmp_path) == before
    assert uninstall(tmp_path) == []


OWN = {
    "AGENTS.md": b"# Ours\r\n\r\nBe kind.\xff",
    ".mcp.json": b'{"mcpServers":{"other":{"command":"x"}},\t"more":1}',
    ".cursor/mcp.json": b"",
    ".agents/rules/a.md": b"Rule.\n",
    ".claude/skills/own/SKILL.md": b"---\nname: own\n---\n",
}


def test_what_the_owner_had_is_merged_and_restored_byte_for_byte(tmp_path: Path) -> None:
    for path, content in OWN.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    before = tree(tmp_path)
    install(tmp_path)
    servers = json.loads((tmp_path / ".mcp.json").read_text())
    assert set(servers["mcpServers"]) == {"other", "ai-forge"}
    assert servers["more"] == 1
    assert (tmp_path / "AGENTS.md").read_bytes().startswith(OWN["AGENTS.md"])
    uninstall(tmp_path)
    assert tree(tmp_path) == before


def test_what_its_owner_wrote_since_is_kept(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("# Ours\n")
    install(tmp_path)
    with (tmp_path / "AGENTS.md").open("a") as file:
        file.write("\nMore.\n")
    servers = json.loads((tmp_path / ".mcp.json").read_text())
    servers["mcpServers"]["mine"] = {"command": "y"}
    (tmp_path / ".mcp.json").write_text(json.dumps(servers))
    uninstall(tmp_path)
    assert (tmp_path / "AGENTS.md").read_text() == "# Ours\nMore.\n"
    assert json.loads((tmp_path / ".mcp.json").read_text()) == {"mcpServers": {"mine": {"command": "y"}}}


@pytest.mark.parametrize("content", ["{", "[]", '{"mcpServers": 3}'])
def test_a_file_that_cannot_be_merged_stops_the_whole(tmp_path: Path, content: str) -> None:
    (tmp_path / ".mcp.json").write_text(content)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"\.mcp\.json"):
        install(tmp_path)
    assert tree(tmp_path) == before


def test_a_record_that_leads_outside_removes_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    repository = tmp_path / "repository"
    (repository / RECORD).parent.mkdir(parents=True)
    record = {"files": [{"path": "../secret", "kind": "created", "sha256": "0" * 64}], "folders": []}
    (repository / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputError, match="outside the repository"):
        uninstall(repository)
    assert (tmp_path / "secret").exists()


def test_every_skill_runs_a_module_that_there_is() -> None:
    import importlib.util

    for skill in read_skills():
        module = skill.command.removeprefix("python -m ")
        assert importlib.util.find_spec(module), skill.command
        assert skill_name(skill).startswith("forge-")
