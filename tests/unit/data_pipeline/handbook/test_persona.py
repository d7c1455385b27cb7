"""Who the model of a handbook is when it is served."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline.handbook.persona import persona_file, read_persona
from ai_forge.errors import InputError


def test_senior_dev_names_its_three_rules_and_its_stops() -> None:
    path = persona_file("senior-dev")
    assert path is not None
    persona = read_persona(path)
    for said in ("identity audit", "Step 0", "300-line limit", "verification wall"):
        assert said in persona.system
    assert persona.stops("</s>") == ("</s>", "<|end_of_text|>", "<|eot_id|>", "### Instruction:")
    assert persona.stops("<|eot_id|>").count("<|eot_id|>") == 1


@pytest.mark.parametrize("name", ["other-dev", "../senior-dev", ""])
def test_other_names_have_none(name: str) -> None:
    assert persona_file(name) is None


def test_a_team_gives_its_own(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("system: Be brief.\nstop: ['###']\n", encoding="utf-8")
    persona = read_persona(tmp_path / "p.yaml")
    assert (persona.system, persona.stops()) == ("Be brief.", ("###",))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("system: ''\n", "system: String should have at least 1 character"),
        ("- a\n", "is no persona"),
        ("system: a\nstops: [b]\n", "stops: Extra inputs are not permitted"),
        ("system: [\n", "cannot be read as YAML"),
        ("x: 1\n" * 20_000, "has 100000 bytes"),
    ],
)
def test_anything_else_is_refused(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read_persona(tmp_path / "p.yaml")
