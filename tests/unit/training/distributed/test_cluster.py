"""Processes that a launcher started train as one does; those that are not the first serve it and say nothing."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.events import ignore, read_events
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.distributed import cluster
from ai_forge.training.distributed.cluster import Cluster, in_cluster, rank_info_of
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.group import Alone, RankInfo
from cli_runs import ai_forge, flags, stdlib_copy, tiny_base
from tiny_models import make_tiny
from tiny_training import tiny_config

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def words(command: str, repo: Path, root: Path, base: Path, **changes: object) -> list[str]:
    return [command, str(repo), "--base", str(base), "--home", str(root / "home"), *flags(**changes)]


def started(command: Sequence[str], **variables: str) -> "subprocess.Popen[str]":
    chosen = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen(
        [sys.executable, *command], env=chosen, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def both(given: Sequence[str]) -> list["subprocess.Popen[str]"]:
    """`python -m ai_forge given…` in two processes, by rank."""
    port = free_port()
    return [
        started(["-m", "ai_forge", *given], **LAUNCHED | {"RANK": str(rank), "MASTER_PORT": port}) for rank in range(2)
    ]


def together(given: Sequence[str]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of `both`."""
    running, ended = both(given), []
    for process in running:
        out, err = process.communicate(timeout=300)
        ended.append((process.returncode, out, err))
    return ended


def curve(root: Path) -> list[tuple[str, int, float]]:
    """What `events.jsonl` says of the losses."""
    paths = (root / "home" / "runs").glob("*/events.jsonl")
    events = [event for path in paths for event in read_events(path)]
    return [(e["event"], e["step"], e["loss"]) for e in events if e["event"] in ("StepLogged", "EvalFinished")]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(repository, base)."""
    root = tmp_path_factory.mktemp("material")
    return stdlib_copy(root / "repo"), tiny_base(root / "base")


@pytest.fixture(scope="module")
def alone(material: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, float]]:
    """The losses of one process."""
    root = tmp_path_factory.mktemp("alone")
    assert ai_forge(*words("train", material[0], root, material[1])).code == 0
    return curve(root)


def assert_equal(ours: list[tuple[str, int, float]], theirs: list[tuple[str, int, float]]) -> None:
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    assert len(ours) >= 5
    np.testing.assert_allclose([loss for *_, loss in ours], [loss for *_, loss in theirs], rtol=2e-3)


TORCHRUN = "-m torch.distributed.run --nnodes 2 --node_rank {rank} --master_addr 127.0.0.1 --master_port {port}"
ACCELERATE = (  # what it does where there are several GPUs
    "-m accelerate.commands.launch --multi_gpu --mixed_precision no --dynamo_backend no --num_machines 2 --num_processes 2"
    " --machine_rank {rank} --main_process_ip 127.0.0.1 --main_process_port {port}"
)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate launch"])
def test_two_nodes_have_the_losses_of_one_process(
    launcher: str, material: tuple[Path, Path], alone: list[tuple[str, int, float]], tmp_path: Path
) -> None:
    port, train = free_port(), words("train", material[0], tmp_path, material[1])
    nodes = [started([*launcher.format(rank=rank, port=port).split(), "-m", "ai_forge", *train]) for rank in range(2)]
    (first, told), (second, silent) = [(n.communicate(timeout=300), n.returncode) for n in nodes]
    assert (told, silent) == (0, 0), (first, second)
    assert json.loads(first[0])["n_steps"] == 3
    assert "✓ train" in first[1]
    assert second[0] == ""
    assert "train" not in second[1]
    assert_equal(curve(tmp_path), alone)


@pytest.mark.slow
def test_a_launchers_environment_is_enough(
    material: tuple[Path, Path], alone: list[tuple[str, int, float]], tmp_path: Path
) -> None:
    for _ in range(2):
        (first, out, _), (second, *silent) = together(words("train", material[0], tmp_path, material[1]))
        assert (first, second) == (0, 0)
        assert json.loads(out)["stage"] == "train"
        assert silent == ["", ""]
    assert_equal(curve(tmp_path), alone)


@pytest.mark.slow
def test_an_error_before_the_training_is_told_once(tmp_path: Path) -> None:
    (first, _, err), (second, *silent) = together(["train", str(tmp_path / "nowhere"), "--home", str(tmp_path)])
    assert first == 2
    assert "bad_input" in err
    assert second == 0
    assert silent == ["", ""]


@pytest.mark.slow
def test_processes_beside_a_launchers_are_refused(material: tuple[Path, Path], tmp_path: Path) -> None:
    given = [*words("train", material[0], tmp_path, material[1]), "--nproc", "2"]
    (first, _, err), (second, *silent) = together(given)
    assert (first, second) == (2, 0)
    assert "training.nproc is 2, and a launcher has started 2 processes already" in err
    assert silent == ["", ""]


@pytest.mark.slow
def test_a_lost_process_is_told_and_the_same_command_continues(material: tuple[Path, Path], tmp_path: Path) -> None:
    given = words("train", material[0], tmp_path, material[1], training__max_steps=80, training__num_epochs=100)
    first, second = both(given)
    while not any(event == "StepLogged" and step > 5 for event, step, _ in curve(tmp_path)):
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    second.kill()
    _, err = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 4
    assert "try_again: Process 0 of 2 lost the others (" in err
    (again, out, err), (other, *silent) = together(given)
    assert (again, other, silent) == (0, 0, ["", ""]), err
    assert json.loads(out)["n_steps"] == 80
    assert "continuing after step" in err


def test_a_machine_that_does_not_see_the_folders_is_named(tmp_path: Path) -> None:
    class Two(Alone):
        size = 2

        def gather(self, value: Any) -> list[Any]:
            return [value, [str(tmp_path / "unseen")]]

    base = resolve_base(str(make_tiny(tmp_path / "base")), cache_dir=tmp_path)
    group: Any = Two()
    with pytest.raises(PrerequisiteError, match=r"^Process 1 of 2 does not see \S+unseen\. Next: let AI_FORGE_HOME"):
        Cluster(group).train(FineTuneTrainer, tiny_config(), "train", (), {"base": base, "folder": tmp_path}, ignore)


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"RANK": "3"}])
def test_without_others_a_process_stands_alone(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank_info_of(variables) is None
    assert in_cluster(lambda: "done") == "done"
    assert cluster.joined() is None


def test_the_variables_say_where_a_process_stands() -> None:
    assert rank_info_of(LAUNCHED) == RankInfo(1, 2, 0, 1, "env://")
    assert rank_info_of(LAUNCHED | {"LOCAL_WORLD_SIZE": "2"}) == RankInfo(1, 2, 0, 2, "env://")


def test_variables_that_are_missing_are_named_together() -> None:
    with pytest.raises(
        InputError, match=r"^WORLD_SIZE is 2, and RANK, MASTER_PORT, MASTER_ADDR of the environment cannot"
    ):
        rank_info_of({"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "http"})
