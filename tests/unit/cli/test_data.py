"""`ai-forge data …` and `ai-forge handbook`: what they print and write, with which exit code."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ai_forge.data_pipeline.datasets.parquet import read_parquet
from ai_forge.data_pipeline.schemas import RAFTExample
from cli_runs import TinyRun, ai_forge

FIXTURE = Path(__file__).parents[2] / "fixtures" / "handbook"


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"instruction": "Q", "input": str(n), "output": "A"} for n in range(3)]))
    return path


def test_convert_writes_and_says_what_is_lost(alpaca: Path, tmp_path: Path) -> None:
    done = ai_forge("data", "convert", alpaca, tmp_path / "out.jsonl", "--to", "sharegpt")
    assert (done.code, done.out) == (0, f"3 records as sharegpt in {tmp_path / 'out.jsonl'}\n")
    assert done.err == "lost: the border between instruction and input (all records)\n"
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    told = ai_forge("data", "convert", alpaca, tmp_path / "out.parquet", "--to", "alpaca", "--json").json
    assert told == {"file": str(tmp_path / "out.parquet"), "format": "alpaca", "records": 3, "lost": []}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("convert", "{in}", "{in}", "--to", "messages"), "is the dataset itself"),
        (("convert", "{in}", "{out}", "--to", "csv"), "'csv' is no format. Next: Known are raft"),
        (("convert", "{in}", "{out}.txt", "--to", "messages"), "cannot hold messages"),
        (("convert", "{in}", "{out}.json", "--to", "raft"), "alpaca cannot become raft"),
        (("show", "{in}", "--family", "x"), "No record has the family 'x'"),
        (("stats", "{out}.json"), "does not exist"),
    ],
)
def test_bad_words_are_one_line(alpaca: Path, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = ai_forge(
        "data", *(word.replace("{in}", str(alpaca)).replace("{out}", str(tmp_path / "o")) for word in words)
    )
    assert done.code == 2
    assert told in done.complaint


def test_show_stats_and_diff(alpaca: Path, tmp_path: Path) -> None:
    shown = ai_forge("data", "show", alpaca, "-n", "1").out
    assert shown.splitlines()[1:] == ["user: Q", "", "0", "assistant: A"]
    assert len(ai_forge("data", "show", alpaca, "--json").json) == 3
    stats = ai_forge("data", "stats", alpaca, "--json").json
    assert (stats["format"], stats["records"], stats["duplicates"]) == ("alpaca", 3, 0)
    assert "records                3\n" in ai_forge("data", "stats", alpaca).out
    other = tmp_path / "other.json"
    other.write_text(alpaca.read_text().replace('"input": "2", "output": "A"', '"input": "2", "output": "B"'))
    assert ai_forge("data", "diff", alpaca, other).out.splitlines()[-1] == "0 added, 0 removed, 1 changed, 2 the same"
    assert ai_forge("data", "diff", alpaca, other, "--json").json["same"] == 2


def test_the_handbook_is_written_beside_the_rules(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "repo")
    done = ai_forge("handbook", tmp_path / "repo", "--json")
    assert done.code == 0, done.err
    told = done.json
    agent = tmp_path / "repo" / ".agent"
    pairs = json.loads((agent / "fine-tuning-file.json").read_text(encoding="utf-8"))
    held_out = json.loads((agent / "fine-tuning-held-out.json").read_text(encoding="utf-8"))
    assert all(list(pair) == ["instruction", "input", "output"] for pair in [*pairs, *held_out])
    assert (len(pairs), len(held_out)) == (told["train"], told["held_out"])
    assert len((agent / "fine-tuning-probes.jsonl").read_text().splitlines()) == told["probes"]
    assert len((agent / "fine-tuning-preferences.jsonl").read_text().splitlines()) <= told["preferences"]
    assert sorted(told["written"]) == sorted(str(path) for path in agent.glob("fine-tuning-*"))
    again = ai_forge("handbook", agent, "--hold-out", "0")
    assert (
        f"{told['pairs']} pairs of {told['rules']} rules: {told['pairs']} to train on, 0 of 0 rules held out"
        in again.out
    )
    assert not (agent / "fine-tuning-held-out.json").exists()
    assert ai_forge("data", "stats", agent / "fine-tuning-file.json", "--json").json["records"] == told["pairs"]
    assert ai_forge("data", "stats", agent / "fine-tuning-preferences.jsonl", "--json").json["by_kind"] == {
        "correction": 10
    }


def test_a_dry_run_of_the_handbook_writes_nothing_and_without_one_it_says_so(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "repo")
    before = sorted(tmp_path.rglob("*"))
    assert ai_forge("handbook", tmp_path / "repo", "--dry-run").code == 0
    assert sorted(tmp_path.rglob("*")) == before
    missing = ai_forge("handbook", tmp_path)
    assert missing.code == 2
    assert "has no .agent or .agents folder" in missing.complaint


def test_preferences_of_a_repository(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    code = "def mean(values):\n    '''The mean of the values.'''\n    total = sum(values) + 0\n    return total / {}\n"
    for message, divisor in (("Add", "len(values)"), ("Fix nothing", "max(1, len(values))")):
        (repo / "a.py").write_text(code.format(divisor))
        for words in (
            ("init", "-q"),
            ("add", "-A"),
            ("-c", "user.name=T", "-c", "user.email=t@e.org", "commit", "-qm", message),
        ):
            subprocess.run(["git", "-C", str(repo), *words], env=environment, check=True, capture_output=True)
    done = ai_forge("data", "preferences", repo, "--out", tmp_path / "p.jsonl")
    assert (done.code, done.out) == (0, f"fix              1\n1 pairs in {tmp_path / 'p.jsonl'}\n")
    assert "- def mean" in ai_forge("data", "show", tmp_path / "p.jsonl", "--family", "fix").out
    none = ai_forge("data", "preferences", repo, "--out", tmp_path / "q.jsonl", "--max-commits", "0")
    assert none.code == 2
    (repo / "a.py").write_text("x = 1\n")
    subprocess.run(
        ["git", "-C", str(repo), "-c", "user.name=T", "-c", "user.email=t@e.org", "commit", "-qam", "More"],
        env=environment,
        check=True,
    )
    assert (
        "No preference pair in"
        in ai_forge("data", "preferences", repo, "--out", tmp_path / "q.jsonl", "--max-commits", "1").complaint
    )


def test_a_runs_dataset_is_a_folder_with_a_manifest(finished: TinyRun) -> None:
    (folder,) = (path.parent for path in finished.home.glob("cache/dataset/*/dataset.json"))
    stats = ai_forge("data", "stats", folder, "--json").json
    assert stats["parts"] == {
        side: len(read_parquet(folder / f"{side}.parquet", RAFTExample)) for side in stats["parts"]
    }
    assert list(stats["parts"]) == ["train", "valid", "test"]
    assert stats["records"] == sum(stats["parts"].values()) > 0
    manifest = json.loads((folder / "dataset.json").read_text())
    assert set(manifest["settings"]) == {"miner", "split", "synthesis", "validator"}
    assert manifest["provenance"]["repository"] == "repo"
