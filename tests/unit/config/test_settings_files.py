"""The YAML files and `.env.example` say what the models say: every key, with its default, explained."""

import re
from importlib import resources
from pathlib import Path

import pytest

from ai_forge.config import Settings, environment_layer, file_layer, known_keys, load_settings

FOLDER = Path(str(resources.files("ai_forge.config")))
DEFAULTS, TRAINING = FOLDER / "defaults.yaml", FOLDER / "pissa_config.yaml"
EXAMPLE = Path(__file__).parents[3] / ".env.example"


def example_variables() -> dict[str, str]:
    pairs = re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.*)$", EXAMPLE.read_text(), flags=re.M)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_every_setting_stands_in_one_of_the_files() -> None:
    training, others = (set(file_layer(path)[1]) for path in (TRAINING, DEFAULTS))
    assert training == {key for key in known_keys() if key.startswith("training.")}
    assert others == set(known_keys()) - training


def test_the_files_hold_the_defaults() -> None:
    assert load_settings(file_layer(DEFAULTS), file_layer(TRAINING)).settings == Settings()


def test_every_training_parameter_has_a_comment_of_its_own() -> None:
    lines = TRAINING.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"  \w+:", line):
            assert re.match(r"  # [A-Z].{20}", lines[number - 1]) or lines[number - 1].startswith("  # "), line


@pytest.mark.parametrize("part", [name for name in Settings.model_fields if name != "training"])
def test_every_part_and_key_of_the_defaults_has_a_comment(part: str) -> None:
    section = re.search(rf"^(# .+\n){part}:\n((?:  .+\n)+)", DEFAULTS.read_text(), flags=re.M)
    assert section is not None
    assert all(" # " in line for line in section[2].splitlines())


def test_the_example_environment_sets_every_setting_to_its_default() -> None:
    settings = {name: text for name, text in example_variables().items() if "__" in name}
    _, values = environment_layer(settings)
    assert set(values) == set(known_keys())
    assert load_settings(environment_layer(settings)).settings == Settings()


def test_the_example_environment_names_every_variable_that_the_code_reads() -> None:
    read = set()
    for path in (FOLDER.parent).rglob("*.py"):
        read |= set(re.findall(r"environ(?:ment)?(?:\.get\(|\[)\"([A-Z_]+)\"", path.read_text()))
        read |= set(re.findall(r"constants\.(HF_\w+)", path.read_text()))
    assert {"AI_FORGE_HOME", "OLLAMA_HOST", "OLLAMA_MODELS"} <= read
    assert read <= set(example_variables())
