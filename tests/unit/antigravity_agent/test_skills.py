"""`skills.yaml` as it was agreed: the names, and each command a module that runs and says so."""

import subprocess
import sys
from importlib import resources

import pytest
import yaml

SKILLS = {
    "extract_data": "ai_forge.data_pipeline.miner",
    "validate_data": "ai_forge.data_pipeline.validator",
    "train_model": "ai_forge.training.forge",
    "evaluate_model": "ai_forge.judge.evaluator",
    "export_model": "ai_forge.judge.exporter",
    "deploy_model": "ai_forge.conductor.ollama_manager",
}


def test_the_skills_have_the_agreed_names_and_commands() -> None:
    text = (resources.files("ai_forge.antigravity_agent") / "skills.yaml").read_text(encoding="utf-8")
    skills = yaml.safe_load(text)["skills"]
    assert {name: skill["command"] for name, skill in skills.items()} == {
        name: f"python -m {module}" for name, module in SKILLS.items()
    }
    assert all(len(skill["description"]) > 40 for skill in skills.values())


@pytest.mark.parametrize("module", SKILLS.values())
def test_each_command_runs_and_says_so(module: str) -> None:
    words = [sys.executable, "-W", "error", "-m", module, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module}")
