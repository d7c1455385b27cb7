"""`python -m ai_forge.training.forge` on a dataset of the finished run, with a tiny base."""

import json
import shutil
from pathlib import Path

import pytest

from ai_forge.training.command import main
from cli_runs import SETTINGS, TinyRun, runner_of

WORDS = [
    word
    for key, value in SETTINGS.items()
    if key.startswith("training.") and key != "training.max_steps"
    for word in ("--set", f"{key.removeprefix('training.')}={value}")
]


def test_a_dataset_becomes_an_adapter_and_the_same_command_finds_it(
    finished: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = runner_of(finished).outputs().folder("dataset")
    home = ["--home", str(finished.home), "--base", str(finished.base), "--steps", "2"]
    assert main([str(data), *home, *WORDS, "--output", str(tmp_path / "whole")]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["n_steps"], result["folder"]) == (2, str(tmp_path / "whole"))
    assert (tmp_path / "whole" / "adapter_model.safetensors").is_file()
    assert "held-out loss" in printed.err
    shutil.copyfile(data / "train.jsonl", tmp_path / "own.jsonl")
    assert main([str(tmp_path / "own.jsonl"), *home, *WORDS, "--output", str(tmp_path / "split")]) == 0
    assert (tmp_path / "split" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere.jsonl"], "is not a file"),
        (["nowhere.jsonl", "--set", "rank"], "has no value"),
        (["nowhere.jsonl", "--set", "rankk=3"], "did you mean training.rank?"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err
