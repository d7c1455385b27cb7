"""The deployed models that the service holds open, each at its active version.

The registry is the truth: it is read again when its file has changed. A version that becomes active is opened and asked beside
the old one, which serves until the new one has answered; where the new one cannot be opened the old one goes on serving, and it
is tried again later. Who is being answered keeps the version it was begun with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ai_forge.conductor.problems import ServiceError
from ai_forge.errors import AIForgeError
from ai_forge.serving.registry import Activation, ActiveVersion, Registry
from ai_forge.serving.runtime import Endpoint
from ai_forge.serving.served_model import ServedModel

if TYPE_CHECKING:
    from ai_forge.config.settings import RuntimeSettings
    from ai_forge.workspace import Workspace

__all__ = ["PLAIN", "OpenModel", "OpenModels"]

log = logging.getLogger(__name__)
PLAIN = "plain"
TRY_AGAIN_S = 30.0
# a file's time moves in steps: what was read within one of a write may not be the last state of it
SAME_TICK_S = 0.05


@dataclass(eq=False)
class OpenModel:
    """A version that can be asked."""

    served: ServedModel
    endpoint: Endpoint
    _held: contextlib.ExitStack
    n_users: int = 0
    is_left: bool = False
    last_used: float = field(default_factory=time.monotonic)

    @property
    def activation(self) -> Activation:
        """Since when it is the active one."""
        return self.served.activation

    def is_of(self, activation: Activation) -> bool:
        """Whether it is this version in this runtime."""
        mine = self.activation
        return (mine.version, mine.runtime) == (activation.version, activation.runtime)

    def close(self) -> None:
        """Free it."""
        self._held.close()


class OpenModels:
    """All that are open, by name. Used from one event loop; what takes time runs in threads."""

    def __init__(self, workspace: Workspace, settings: RuntimeSettings, *, limit: int) -> None:
        self._workspace = workspace
        self._settings = settings
        self._limit = limit
        self._open: dict[str, OpenModel] = {}
        self._opening: dict[str, asyncio.Task[OpenModel]] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        self._known: dict[str, ActiveVersion] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def deployed(self) -> dict[str, ActiveVersion]:
        """The active version of each model, by name."""
        try:
            stat = self._workspace.registry_path.stat()
        except FileNotFoundError:
            return {}
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp != self._stamp:
            read_at = time.time()
            with Registry(self._workspace.registry_path) as registry:
                self._known = registry.deployed()
            self._stamp = stamp if read_at - stat.st_mtime > SAME_TICK_S else None
        return self._known

    def opened(self) -> list[OpenModel]:
        """Those that are open now."""
        return list(self._open.values())

    def find(self, model: str | None) -> tuple[ActiveVersion, bool]:
        """The deployed model that a request names, and whether it is to be asked plainly, without retrieval.

        `NAME`, `NAME:latest` and `NAME:plain`; without a name the one that was deployed last.

        Raises:
            ServiceError: 404, with the names that there are.
        """
        known = self.deployed()
        if not known:
            raise ServiceError(
                404, "model_not_found", "No model is deployed.", "make and deploy one: ai-forge run.", param="model"
            )
        if not model:
            return max(known.values(), key=lambda deployed: deployed.activation.id), False
        name, _, tag = model.partition(":")
        if name in known and tag in ("", "latest", PLAIN, known[name].activation.version):
            return known[name], tag == PLAIN
        names = ", ".join(sorted(known))
        raise ServiceError(
            404,
            "model_not_found",
            f"There is no model {model[:100]!r}; deployed are {names}.",
            f"name one of them, with `:{PLAIN}` to ask it without retrieval.",
            param="model",
        )

    @contextlib.asynccontextmanager
    async def using(self, deployed: ActiveVersion) -> AsyncIterator[OpenModel]:
        """The model, open while the block runs.

        Raises:
            AIForgeError: it cannot be opened, and no older version of it is open.
        """
        model = await self._opened(deployed)
        model.n_users += 1
        model.last_used = time.monotonic()
        try:
            yield model
        finally:
            model.n_users -= 1
            if model.is_left and not model.n_users:
                self._close(model)

    async def _opened(self, deployed: ActiveVersion) -> OpenModel:
        name = deployed.activation.name
        model = self._open.get(name)
        if model is not None and model.is_of(deployed.activation):
            return model
        task = self._opening.get(name)
        if task is None and not (model is not None and self._failed_lately(deployed.activation)):
            task = self._opening[name] = asyncio.create_task(self._replace(name))
        if model is not None:
            return model
        assert task is not None
        # shielded: the caller may go away, others wait for the same
        return await asyncio.shield(task)

    def _failed_lately(self, activation: Activation) -> bool:
        failed = self._failed.get(activation.name)
        return failed is not None and failed[0] == activation.id and time.monotonic() < failed[1]

    async def _replace(self, name: str) -> OpenModel:
        """Open the active version of `name`, ask it, and put it in the place of what is open."""
        activation = self.deployed()[name].activation
        try:
            model = await asyncio.to_thread(self._open_and_ask, name)
        except BaseException as error:
            self._failed[name] = (activation.id, time.monotonic() + TRY_AGAIN_S)
            if isinstance(error, AIForgeError) and name in self._open:
                log.warning("%s:%s cannot be opened, the version before serves on: %s", name, activation.version, error)
            raise
        finally:
            task = self._opening.pop(name, None)
            if task is not None:
                task.add_done_callback(_look_at)
        before, self._open[name] = self._open.get(name), model
        if before is not None:
            self._leave(before)
        unused = sorted(self._open.values(), key=lambda one: one.last_used)
        for old in unused[: max(0, len(self._open) - self._limit)]:
            del self._open[old.activation.name]
            self._leave(old)
        return model

    def _open_and_ask(self, name: str) -> OpenModel:
        with contextlib.ExitStack() as stack:
            served = stack.enter_context(ServedModel.open(name, self._workspace, self._settings))
            endpoint = stack.enter_context(served.runtime.endpoint(served.deployment.model))
            served.runtime.greedy(served.deployment.model, "a", 1)
            _ = served.index  # read now: the first question need not wait for it
            return OpenModel(served, endpoint, stack.pop_all())

    def _leave(self, model: OpenModel) -> None:
        model.is_left = True
        if not model.n_users:
            self._close(model)

    def _close(self, model: OpenModel) -> None:
        task = asyncio.create_task(asyncio.to_thread(model.close))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Free all of them; answers on their way end."""
        for task in list(self._opening.values()):
            with contextlib.suppress(Exception):
                await task
        for model in self._open.values():
            self._close(model)
        self._open.clear()
        await asyncio.gather(*self._closing)


def _look_at(task: asyncio.Task[OpenModel]) -> None:
    """An error of a task that nobody waits for was logged already; asyncio would complain once more."""
    if not task.cancelled():
        task.exception()
