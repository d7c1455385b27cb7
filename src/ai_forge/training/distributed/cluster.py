"""A training in processes that something else started, on one machine or several: torchrun, accelerate launch, Ray.

    torchrun --nnodes 2 --node_rank 0 --master_addr HOST --master_port 29500 -m ai_forge train REPO    on HOST
    torchrun --nnodes 2 --node_rank 1 --master_addr HOST --master_port 29500 -m ai_forge train REPO    on the other

Rank 0 runs the command. The others, whatever words they were started with, wait for its trainings and take part: settings,
examples and paths come from rank 0 over the group; the base, the initialisation and the checkpoints are read from
`AI_FORGE_HOME`, which all machines must see under the same path. They mine nothing, write nothing and print nothing but an
error of their own.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.config import FineTuneConfig
from ai_forge.errors import CancelledError, InputError, PrerequisiteError
from ai_forge.events import Sink, ignore
from ai_forge.training.group import RankInfo

if TYPE_CHECKING:
    from ai_forge.training.backends.torch_group import TorchGroup
    from ai_forge.training.forge import FineTuneTrainer

T = TypeVar("T")
Job = tuple["type[FineTuneTrainer]", FineTuneConfig, str, Sequence[Any], Mapping[str, Any]]
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
ADDRESS = "MASTER_ADDR"


class Cluster:
    """The group that this process has joined; `waiting` says that the others wait for rank 0's next training."""

    def __init__(self, group: "TorchGroup") -> None:
        self.group = group
        self.waiting = True

    def train(
        self,
        kind: "type[FineTuneTrainer]",
        config: FineTuneConfig,
        method: str,
        data: Sequence[Any],
        parts: Mapping[str, Any],
        emit: Sink,
        cancel: CancelToken = NEVER,
    ) -> Any:
        """In rank 0: `kind(config, **parts).method(*data)` in all processes.

        Raises:
            PrerequisiteError: another machine does not see the folders; and whatever the method raises.
        """
        self.waiting = False
        job: Job = kind, config.model_copy(update={"nproc": self.group.size}), method, data, parts
        result = self._take_part(self.group.broadcast(lambda: job), emit, cancel)
        self.waiting = True
        return result

    def serve(self) -> None:
        """In the other ranks: take part in rank 0's trainings until it ends."""
        nothing: Job | None = None
        while job := self.group.broadcast(lambda: nothing):
            self._take_part(job, ignore, NEVER)
        self.group.close()

    def dismiss(self) -> None:
        """In rank 0: let the others go, where they wait."""
        if self.waiting:
            self.group.broadcast(lambda: None)
            self.group.close()

    def _take_part(self, job: Job, emit: Sink, cancel: CancelToken) -> Any:
        kind, config, method, data, parts = job
        folders: list[Path] = [parts["base"].folder, parts["folder"]]
        if parts.get("adapter"):
            folders.append(parts["adapter"])
        # before anything is loaded: a machine that lacks a folder would fail alone, and the others wait for it
        unseen = self.group.gather([str(folder) for folder in folders if not folder.is_dir()])
        for rank, missing in enumerate(unseen):
            if missing:
                raise PrerequisiteError(
                    f"Process {rank} of {self.group.size} does not see {', '.join(missing)}.",
                    "let AI_FORGE_HOME and the base lie in a folder that all machines share under the same path.",
                )
        trainer = kind(config, **parts, emit=emit, group=self.group, cancel=cancel)
        return getattr(trainer, method)(*data)


_joined: Cluster | None = None  # as torch.distributed's own default group: a process is in one or in none


def joined() -> Cluster | None:
    """The cluster that this process belongs to, None where it stands alone."""
    return _joined


def rank_info_of(variables: Mapping[str, str]) -> RankInfo | None:
    """Where the launcher's variables put this process; None where there is no launcher, or one process only.

    >>> rank_info_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"})
    RankInfo(rank=3, size=4, local_rank=1, n_here=1, rendezvous='env://')

    Raises:
        InputError: some of the variables are missing or no numbers.
    """
    if variables.get("WORLD_SIZE", "1") == "1":
        return None
    wrong = [name for name in NUMBERS if not variables.get(name, "").isdecimal()]
    if not variables.get(ADDRESS):
        wrong.append(ADDRESS)
    if wrong:
        raise InputError(
            f"WORLD_SIZE is {variables['WORLD_SIZE']}, and {', '.join(wrong)} of the environment cannot be used.",
            "start the processes with torchrun or accelerate launch, or unset WORLD_SIZE.",
        )
    rank, size, local_rank, _ = (int(variables[name]) for name in NUMBERS)
    return RankInfo(rank, size, local_rank, int(variables.get("LOCAL_WORLD_SIZE", "1")), "env://")


def in_cluster(command: Callable[[], T]) -> T | None:
    """`command()` in rank 0 of the processes that a launcher started, or where there is none; the others serve it.

    Raises:
        InputError: the launcher's variables cannot be used; and whatever the command raises.
    """
    global _joined
    info = rank_info_of(os.environ)
    if info is None:
        return command()
    from ai_forge.training.backends.torch_group import TorchGroup

    cluster = _joined = Cluster(TorchGroup(info))
    if info.rank != 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches rank 0, too, which decides for all
        with contextlib.suppress(CancelledError):  # told by rank 0
            cluster.serve()
        return None
    try:
        return command()
    finally:
        cluster.dismiss()
