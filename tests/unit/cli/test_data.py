"""`ai-forge data …` and `ai-forge handbook`: what they print and write, with which exit code."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ai_forge.data_pipeline.datasets.parquet import read_rows
from cli_runs import TinyRun, ai_forge

FIXTURE = Path(__file__).parents[2] / "fixtures" / "handbook"


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"instruction": "Q", "input": str(n), "output": "A"} for n in range(3)]))
    return path


def test_convert_writes_and_says_what_is_lost(alpaca: Path, tmp_path: Path) -> None:
    done = ai_forge("data", "convert", alpaca, tmp_path / "out.jsonl", "--to", "sharegpt", on_terminal=True)
    assert (done.code, done.out) == (0, f"3 records as sharegpt in {tmp_path / 'out.jsonl'}\n")
    assert done.err == "lost: the border between instruction and input (all records)\n"
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    told = ai_forge("data", "convert", alpaca, tmp_path / "out.parquet", "--to", "alpaca").json
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
    shown = ai_forge("data", "show", alpaca, "-n", "1", on_terminal=True).out
    assert shown.splitlines()[1:] == ["user: Q", "", "0", "assistant: A"]
    assert len(ai_forge("data", "show", alpaca).json) == 3
    stats = ai_forge("data", "stats", alpaca, "--json").json
    assert (stats["format"], stats["records"], stats["duplicates"]) == ("alpaca", 3, 0)
    assert "records                3\n" in ai_forge("data", "stats", alpaca, on_terminal=True).out
    other = tmp_path / "other.json"
    other.write_text(alpaca.read_text().replace('"input": "2", "output": "A"', '"input": "2", "output": "B"'))
    compared = ai_forge("data", "diff", alpaca, other, on_terminal=True).out
    assert compared.splitlines()[-1] == "0 added, 0 removed, 1 changed, 2 the same"
    assert ai_forge("data", "diff", alpaca, other).json["same"] == 2


def test_results_are_json_where_it_is_asked_for_and_in_a_pipe(alpaca: Path, tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "repo")
    to = ("--to", "messages", "--force")
    commands: list[tuple[object, ...]] = [
        ("data", "convert", alpaca, tmp_path / "out.json", *to),
        ("data", "show", alpaca),
        ("data", "stats", alpaca),
        ("data", "diff", alpaca, alpaca),
        ("handbook", tmp_path / "repo", "--dry-run"),
    ]
    for words in commands:
        piped, asked = ai_forge(*words), ai_forge(*words, "--json", on_terminal=True)
        assert (piped.code, piped.out, piped.err) == (0, asked.out, asked.err)
        assert piped.json
        on_terminal = ai_forge(*words, on_terminal=True).out
        assert on_terminal
        with pytest.raises(json.JSONDecodeError):
            json.loads(on_terminal)


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
    made = {str(path) for path in agent.glob("fine-tuning-*")}
    assert made == {*told["written"], str(agent / "fine-tuning-made.json")}
    again = ai_forge("handbook", agent, "--hold-out", "0", on_terminal=True)
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


def test_a_dry_run_shows_every_probe_and_contradictions_are_told(tmp_path: Path) -> None:
    rules = tmp_path / "repo" / ".agent" / "rules"
    rules.mkdir(parents=True)
    (rules / "a.md").write_text("# A\n\nNo file exceeds 300 lines.\n\n# B\n\nAlways push at once.\n", encoding="utf-8")
    (rules / "b.md").write_text("# C\n\nNever push at once.\n", encoding="utf-8")
    done = ai_forge("handbook", tmp_path / "repo", "--dry-run", on_terminal=True)
    probes = ai_forge("handbook", tmp_path / "repo", "--dry-run").json["probe_list"]
    assert probes
    assert all(probe["prompt"] in done.out for probe in probes)
    assert "passes  if it names 300 and each piece of its code has at most 300 lines" in done.out
    assert 'rules/a.md:7 "Always push at once." and rules/b.md:3 "Never push at once."' in " ".join(done.err.split())


OWN = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n}."} for n in range(133)]


def test_the_owners_file_is_left_alone_and_merged_on_request(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "repo")
    file = tmp_path / "repo" / ".agent" / "fine-tuning-file.json"
    file.write_text(json.dumps(OWN), encoding="utf-8")
    before = file.read_bytes()
    told = ai_forge("handbook", tmp_path / "repo", on_terminal=True)
    assert file.read_bytes() == before
    assert "fine-tuning-file.from-handbook.json  (beside yours" in told.out
    assert ai_forge("handbook", tmp_path / "repo", "--merge").code == 0
    merged = json.loads(file.read_text(encoding="utf-8"))
    assert merged[:133] == OWN
    assert len(merged) > 133
    assert not file.with_name("fine-tuning-file.from-handbook.json").exists()
    assert ai_forge("handbook", tmp_path / "repo").code == 0
    assert all(pair in json.loads(file.read_text(encoding="utf-8")) for pair in OWN)
    assert ai_forge("handbook", tmp_path / "repo", "--force").code == 0
    assert not any(pair in json.loads(file.read_text(encoding="utf-8")) for pair in OWN)


def test_what_was_edited_in_our_files_stays_edited(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "repo")
    agent = tmp_path / "repo" / ".agent"
    assert ai_forge("handbook", tmp_path / "repo").code == 0
    file = agent / "fine-tuning-file.json"
    first, second, *others = json.loads(file.read_text(encoding="utf-8"))
    edited = {**second, "output": "In our own words."}
    file.write_text(json.dumps([edited, *others]), encoding="utf-8")
    held_out = (agent / "fine-tuning-held-out.json").read_bytes()
    (agent / "rules" / "new.md").write_text("# Nights\n\nNever deploy after midnight.\n", encoding="utf-8")
    for _ in range(2):
        told = ai_forge("handbook", tmp_path / "repo", "--hold-out", "0.1", on_terminal=True)
        assert "kept edits" in told.out
        pairs = json.loads(file.read_text(encoding="utf-8"))
        assert edited in pairs
        assert first not in pairs
        assert second not in pairs
    assert held_out


@pytest.mark.parametrize("content", ["not json", '{"a": 1}', "[1, 2]", ""])
def test_a_file_of_any_kind_is_the_owners(content: str, tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "repo")
    agent = tmp_path / "repo" / ".agent"
    for name in ("fine-tuning-file.json", "fine-tuning-held-out.json", "fine-tuning-probes.jsonl"):
        (agent / name).write_text(content, encoding="utf-8")
    assert ai_forge("handbook", tmp_path / "repo", "--hold-out", "0").code == 0
    if content:
        assert (agent / "fine-tuning-file.json").read_text(encoding="utf-8") == content
        assert (agent / "fine-tuning-held-out.json").read_text(encoding="utf-8") == content


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".txt"])
def test_convert_overwrites_nothing_without_force(ending: str, alpaca: Path, tmp_path: Path) -> None:
    target = tmp_path / f"there{ending}"
    target.write_text("mine", encoding="utf-8")
    refused = ai_forge("data", "convert", alpaca, target, "--to", "text")
    assert (refused.code, target.read_text(encoding="utf-8")) == (2, "mine")
    assert "is there already" in refused.complaint
    assert ai_forge("data", "convert", alpaca, target, "--to", "text", "--force").code == 0


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
    done = ai_forge("data", "preferences", repo, "--out", tmp_path / "p.jsonl", on_terminal=True)
    assert (done.code, done.out) == (0, f"fix              1\n1 pairs in {tmp_path / 'p.jsonl'}\n")
    assert "- def mean" in ai_forge("data", "show", tmp_path / "p.jsonl", "--family", "fix", on_terminal=True).out
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
    assert stats["parts"] == {side: len(read_rows(folder / f"{side}.parquet")) for side in stats["parts"]}
    assert list(stats["parts"]) == ["train", "valid", "test"]
    assert stats["records"] == sum(stats["parts"].values()) > 0
    manifest = json.loads((folder / "dataset.json").read_text())
    assert set(manifest["settings"]) == {"miner", "split", "synthesis", "validator"}
    assert manifest["provenance"]["repository"] == "repo"
