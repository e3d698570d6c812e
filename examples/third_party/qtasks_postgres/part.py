"""What broker, storage and global config have in common: the link, and the app's number in the schema."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from qtasks.errors import NotStartedError
from qtasks_postgres.batches import Batches, Step
from qtasks_postgres.link import PostgresLink

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


_FORGET = """
    DELETE FROM apps WHERE id = %s
        AND NOT EXISTS (SELECT FROM tasks WHERE app = %s) AND NOT EXISTS (SELECT FROM config WHERE app = %s)
    """


class Part:
    """Mixed into a component, before its contract.

    Parameters:
        link: shared by the components of one application.
    """

    app_name: str
    config: Any

    def __init__(self, link: PostgresLink) -> None:
        super().__init__()
        self.link = link
        self._number = 0
        self._batches: dict[str, Batches[Any, Any]] = {}

    @property
    def locality(self) -> str:
        """Names the schema and the app in it."""
        return f"{self.link.target.label}:{self.app_name}"

    async def open(self) -> None:
        """Connects, unless this component is connected."""
        if self._number and self.link.ours:
            self.link.check()
        else:
            self._batches.clear()
            self._number = await self.link.acquire(self.app_name, self.config.durability)

    async def close(self) -> None:
        """Gives the connections back. What has been handed in is done first."""
        number, self._number = self._number, 0
        if number and self.link.ours:
            for batches in self._batches.values():
                await batches.drained()
            self._batches.clear()
            await self.link.release()

    async def erase(self) -> None:
        """Removes what this component keeps of the app, and the app itself with the last one."""
        await self.flush()
        await self._rows(_FORGET, self._number, self._number)

    async def flush(self) -> None:
        """Of the component."""
        raise NotImplementedError

    def _opened(self) -> int:
        if not self._number:
            raise NotStartedError(f"{type(self).__name__} is not open: use it inside `async with app:`")
        return self._number

    async def _rows(self, statement: str, *values: Any, binary: bool = False) -> list[Any]:
        """The rows that a statement gives; its first parameter is the number of the app."""
        return await self.link.run(statement, (self._opened(), *values), binary=binary)

    async def _submit(
        self, name: str, run: Callable[[Sequence[I]], Any], items: Sequence[I], key: Callable[[I], Hashable],
        bad: Callable[[I, Exception], R] | None = None,
    ) -> list[R]:  # fmt: skip
        """The results of a step for these items; it may go out together with those of other callers.

        Parameters:
            name: names the step.
            run, key, bad: as in `Step`.
        """
        self._opened()
        self.link.check()
        batches = self._batches.get(name)
        if batches is None:
            batches = self._batches[name] = Batches(Step(run, key, bad))
        return await batches.submit(items)
