"""Layers, sources and messages of the settings."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from ai_forge.config import (
    FineTuneConfig,
    LoadedSettings,
    Settings,
    environment_layer,
    file_layer,
    flatten,
    known_keys,
    load_settings,
    recipe_layer,
)
from ai_forge.errors import InputError


def value_and_source(loaded: LoadedSettings, key: str) -> tuple[object, str]:
    return next((value, source) for name, value, source in loaded.rows() if name == key)


def test_a_named_recipe_lies_over_the_bases_and_under_everything_else() -> None:
    key = "training.time_budget_s"
    assert value_and_source(load_settings(), key) == (180.0, "recipe of SmolLM2-135M-Instruct")
    layers = [recipe_layer("handbook")]
    assert value_and_source(load_settings(*layers), key) == (None, "recipe handbook")
    assert value_and_source(load_settings(*layers), "training.max_steps") == (60, "recipe handbook")
    assert load_settings().settings.training.method_name == "rs-LoRA"  # what the base's recipe says
    assert load_settings(*layers).settings.training.method_name == "QPiSSA"  # what the handbook's steps were tried with
    layers.append(("flag", {"training.max_steps": 5}))
    assert value_and_source(load_settings(*layers), "training.max_steps") == (5, "flag")
    with pytest.raises(
        InputError, match=r"There is no recipe 'cookbook'\. Next: known are repository, handbook, dataset\."
    ):
        recipe_layer("cookbook")


def test_each_layer_wins_over_the_one_below_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    key = "training.rank"
    recipe_free = ("file", {"training.base_model": "Llama-3.2-3B-Instruct"})
    assert value_and_source(load_settings(recipe_free), key) == (64, "default")
    assert value_and_source(load_settings(), key) == (32, "recipe of SmolLM2-135M-Instruct")
    path.write_text("training:\n  rank: 16\n  alpha: 8\n")
    layers = [file_layer(path)]
    assert value_and_source(load_settings(*layers), key) == (16, f"file {path}")
    layers.append(environment_layer({"AI_FORGE_TRAINING__RANK": "8"}))
    assert value_and_source(load_settings(*layers), key) == (8, "environment")
    layers.append(("flag", {key: 4}))
    loaded = load_settings(*layers)
    assert value_and_source(loaded, key) == (4, "flag")
    assert value_and_source(loaded, "training.alpha") == (8.0, f"file {path}")
    assert loaded.settings.training.rank == 4


def test_the_recipe_is_that_of_the_base_which_any_layer_may_name() -> None:
    assert load_settings().settings.training.micro_batch_size == 8
    other = load_settings(("flag", {"training.base_model": "Qwen2.5-Coder-0.5B-Instruct"}))
    assert other.settings.training.micro_batch_size == 2
    again = load_settings(
        ("file", {"training.base_model": "x"}), ("flag", {"training.base_model": "smollm2-135m-instruct"})
    )
    assert again.settings.training.micro_batch_size == 8


def test_an_unknown_key_is_told_with_the_nearest_known_one() -> None:
    with pytest.raises(InputError) as caught:
        load_settings(("flag", {"training.rnk": 4}))
    assert str(caught.value) == (
        "training.rnk (flag) is not a setting; did you mean training.rank? Next: `ai-forge config show` lists every setting."
    )


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("training: {rank: 0, learnin_rate: 1}\nzebra: 3\nsplit: {train: 0.9}\n")
    environment = environment_layer({"AI_FORGE_JUDGE__CONFIDENCE": "2", "AI_FORGE_EXPORT__QUANTIZATION": "q3"})
    with pytest.raises(InputError) as caught:
        load_settings(file_layer(path), environment)
    message = caught.value.message
    for part in (
        f"training.learnin_rate (file {path}) is not a setting; did you mean training.learning_rate?",
        f"zebra (file {path}) is not a setting",
        f"training.rank (file {path}) is 0: Input should be greater than or equal to 1",
        "judge.confidence (environment) is 2: Input should be less than 1",
        "export.quantization (environment) is 'q3': Input should be 'f16', 'q4_k_m', 'q5_k_m', 'q6_k' or 'q8_0'",
        "train + valid + test must be 1, got 1.2",
    ):
        assert part in message, part
    assert message.count(";") >= 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1\n- 2\n", "holds a list, not a mapping of settings."),
        ("a: [", "cannot be read: "),
        ("just words", "holds a str, not"),
    ],
)
def test_a_file_that_is_no_mapping_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        file_layer(path)
    assert f"The settings file {path} {told}" in caught.value.message


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.yaml", "binary.yaml", "."):
        with pytest.raises(InputError, match=r"^The settings file .* cannot be read: "):
            file_layer(tmp_path / name)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_settings(file_layer(tmp_path / "empty.yaml")).settings == load_settings().settings


def test_the_environment_speaks_yaml() -> None:
    environment = {
        "AI_FORGE_TRAINING__LEARNING_RATE": "1e-4",
        "AI_FORGE_TRAINING__TARGET_MODULES": "[q_proj, v_proj]",
        "AI_FORGE_TRAINING__MAX_STEPS": "",
        "AI_FORGE_MINER__INCLUDE_TESTS": "true",
        "AI_FORGE_HOME": "/somewhere",
        "OLLAMA_HOST": "http://gpu-box:11434",
        "PATH": "/bin",
    }
    settings = load_settings(environment_layer(environment)).settings
    assert settings.training.learning_rate == 1e-4
    assert settings.training.target_modules == ("q_proj", "v_proj")
    assert settings.training.max_steps is None
    assert settings.miner.include_tests is True
    assert settings.runtime.ollama_host == "http://gpu-box:11434"
    own = environment | {"AI_FORGE_RUNTIME__OLLAMA_HOST": "http://other:1"}
    assert load_settings(environment_layer(own)).settings.runtime.ollama_host == "http://other:1"


def test_an_environment_value_that_is_no_yaml_names_its_variable() -> None:
    with pytest.raises(InputError) as caught:
        environment_layer({"AI_FORGE_TRAINING__TARGET_MODULES": "[q_proj"})
    assert str(caught.value) == (
        "The environment variable AI_FORGE_TRAINING__TARGET_MODULES holds '[q_proj', which is no value. "
        "Next: correct it, or unset it."
    )


def test_rows_hold_every_known_key_once() -> None:
    keys = [key for key, _, _ in load_settings().rows()]
    assert keys == list(known_keys())
    assert len(set(keys)) == len(keys) > 60
    assert dict(flatten({"a": {"b": {"c": 1}}, "d": []})) == {"a.b.c": 1, "d": []}


def test_settings_are_frozen_and_described() -> None:
    with pytest.raises(ValidationError):
        Settings().training.rank = 3  # type: ignore[misc]
    for part in Settings.model_fields.values():
        assert part.annotation is not None
        for name, field in part.annotation.model_fields.items():
            assert field.description or name == "base_model", name


@pytest.mark.parametrize(
    ("init_method", "quantization", "name"),
    [("pissa", "nf4", "QPiSSA"), ("pissa", "none", "PiSSA"), ("lora", "nf4", "QLoRA"), ("lora", "none", "LoRA")],
)
def test_methods_have_the_fields_names(init_method: str, quantization: str, name: str) -> None:
    config = FineTuneConfig(init_method=init_method, quantization=quantization)  # type: ignore[arg-type]
    assert config.method_name == name
    assert config.scaling == 2.0


def test_a_layer_cannot_be_adapted_twice() -> None:
    with pytest.raises(ValidationError, match="target_modules names a layer twice: q_proj, q_proj"):
        FineTuneConfig(target_modules=("q_proj", "q_proj"))


def test_the_defaults_of_the_requirements() -> None:
    config = FineTuneConfig()
    assert config.base_model == "Llama-3.2-3B-Instruct"
    assert (config.rank, config.alpha, config.learning_rate) == (64, 128, 2e-4)
    assert (config.micro_batch_size, config.grad_accum_steps, config.num_epochs) == (2, 4, 3)
    assert (config.eval_steps, config.save_steps, config.max_seq_len) == (50, 100, 2048)
    assert config.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert config.memory_warn_fraction == 0.8


def test_a_pipe_is_no_settings_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match=r"pipe\.yaml cannot be read: .*no regular file"):
        file_layer(tmp_path / "pipe.yaml")
