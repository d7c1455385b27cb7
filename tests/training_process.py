"""A process that is killed while it trains, for `test_training_survives_kills.py`. Prints JSON.

The parent imports everything once and computes nothing, so that its children can be forked, killed and forked again
within a second each.
"""

import hashlib
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from ai_forge.cancel import cancelled_by_interrupt
from ai_forge.errors import CancelledError
from ai_forge.events import Event, StepLogged
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.workspace import Workspace
from tiny_training import raft_examples, tiny_config

import ai_forge.training.backends.torch_init  # noqa: F401  isort: skip
import matplotlib.figure  # noqa: F401  isort: skip


def fork_training(root: Path, base: Path) -> tuple[int, int]:
    """(pid, descriptor that gets a byte a step) of a child that trains in `root`."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    code = 1
    try:
        workspace = Workspace.open(root / "home")
        (root / "work").mkdir(parents=True, exist_ok=True)

        def emit(event: Event) -> None:
            if isinstance(event, StepLogged):
                os.write(write, b"s")

        with cancelled_by_interrupt() as cancel:
            trainer = FineTuneTrainer(
                tiny_config(max_steps=10, learning_rate=3e-3, keep_checkpoints=1),
                base=resolve_base(str(base), cache_dir=workspace.cache_dir),
                folder=root / "work",
                workspace=workspace,
                emit=emit,
                cancel=cancel,
            )
            trainer.train(raft_examples(8), raft_examples(3))
        code = 0
    except CancelledError as error:
        code = error.exit_code
    finally:
        os._exit(code)


def finish(pid: int, read: int) -> tuple[int, int]:
    """(exit code, negative for a signal; steps that were told)."""
    _, status = os.waitpid(pid, 0)
    n_steps = len(os.read(read, 4096)) if select.select([read], [], [], 0)[0] else 0
    os.close(read)
    return os.waitstatus_to_exitcode(status), n_steps


def digest(root: Path) -> str:
    """Of the final adapter."""
    return hashlib.sha256((root / "work" / "adapter_model.safetensors").read_bytes()).hexdigest()


def main(root: Path, base: Path, n_kills: int) -> None:
    """Train undisturbed, then under kills, then with Ctrl-C."""
    code, n_steps = finish(*fork_training(root / "straight", base))
    best = json.loads((root / "straight" / "work" / "training.json").read_text())["best_step"]
    report: dict[str, object] = {"straight": [code, n_steps, best, digest(root / "straight")]}

    random.seed(5)
    kills, codes = 0, []
    while not codes or codes[-1] != 0:
        pid, read = fork_training(root / "killed", base)
        if kills < n_kills:
            for _ in range(random.randint(0, 2)):
                os.read(read, 1)
            time.sleep(random.uniform(0.0, 0.3))
            os.kill(pid, signal.SIGKILL)
            kills += 1
        codes.append(finish(pid, read)[0])
    report["killed"] = [codes, digest(root / "killed")]
    report["debris"] = sorted(p.name for p in (root / "killed").rglob(".*.tmp-*"))

    pid, read = fork_training(root / "interrupted", base)
    for _ in range(3):
        os.read(read, 1)
    os.kill(pid, signal.SIGINT)
    code, more = finish(pid, read)
    kept = sorted(p.name for p in (root / "interrupted" / "work").glob("step-*"))
    resumed = finish(*fork_training(root / "interrupted", base))
    report["interrupted"] = [code, 3 + more, kept, *resumed, digest(root / "interrupted")]
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
