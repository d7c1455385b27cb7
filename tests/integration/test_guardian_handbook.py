"""The handbook's cycle: a change of its rules starts it, a change of nothing does not, and compliance stands in its artifact."""

import shutil
from pathlib import Path

import pytest

from ai_forge.antigravity_agent import RepoGuardian
from cli_runs import SETTINGS, tiny_base

FIXTURE = Path(__file__).parents[1] / "fixtures" / "handbook"

pytestmark = pytest.mark.slow


def test_a_new_rule_starts_the_handbooks_cycle_and_its_report_tells_before_and_after(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(FIXTURE, repo)
    settings = SETTINGS | {"training.base_model": str(tiny_base(tmp_path / "base")), "guardian.desktop": False}

    def guardian() -> RepoGuardian:
        return RepoGuardian({"repository": repo, "home": tmp_path / "home", "recipe": "handbook", "settings": settings})

    assert guardian().monitor_repository().reason == "no model was trained yet"
    first = guardian().run_cycle()
    assert first is not None
    assert first.error is None, first.text
    assert guardian().monitor_repository().reason == "nothing changed"
    rule = next((repo / ".agent" / "rules").glob("*.md"))
    rule.write_text(rule.read_text() + "\n\n")
    assert guardian().monitor_repository().reason == "nothing changed", "no pair is another"
    rule.write_text(
        rule.read_text() + "\n## Deploying\n\n- Never deploy on a Friday.\n- Always write the reason into the log.\n"
    )
    seen = guardian().observe()
    assert rule.relative_to(repo / ".agent").as_posix() in seen.files
    decision = guardian().monitor_repository()
    assert (decision.should_retrain, decision.reason) == (True, "the handbook's rules changed")
    second = guardian().run_cycle()
    assert second is not None
    assert second.run_id != first.run_id
    page = (tmp_path / "home" / "runs" / second.run_id / "artifacts" / "validation_report.md").read_text()
    assert "| rule | base | the version before | this one |" in page
    assert "probes the base keeps" in page
    assert guardian().monitor_repository().reason == "nothing changed"
