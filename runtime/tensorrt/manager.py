"""Which engine serves: TensorRT's where it was built, else another one until it is. No request ever waits for a build."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, Protocol

from headway.core.errors import HeadwayError
from headway.runtime.backends.base import Backend, Outputs
from headway.runtime.ragged import Ragged


class Building(Protocol):
    """A build that was started."""

    def wait(self) -> bool:
        """Wait for its end; False if it was given up. Raises HeadwayError if it failed."""
        ...

    def end(self) -> None:
        """Give it up. Of no effect when it is over."""
        ...


class Managed:
    """Runs on a stand-in while the engine is built, and on the engine from the first call after that.

    A build is tried once. If it fails, `problem` says why, a warning is logged, and the stand-in stays.
    """

    def __init__(
        self, stand_in: Backend, start: Callable[[], Building], open_built: Callable[[], Backend | None]
    ) -> None:
        """
        Args:
            stand_in: another engine on the same device.
            start: starts a build in the background.
            open_built: opens what was built.
        """
        self._serving, self.built = stand_in, False
        self.problem: str | None = None
        building = start()
        weakref.finalize(self, building.end)
        self._waiting = Thread(
            target=_swap, args=(weakref.ref(self), building, open_built), name="headway-engine", daemon=True
        )
        self._waiting.start()

    @property
    def pads(self) -> bool:
        return self._serving.pads

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        return self._serving.run(batches)

    @property
    def run_device(self) -> Any:
        """That of the backend which serves; None where it has none."""
        return getattr(self._serving, "run_device", None)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the build is over; whether the engine serves now."""
        self._waiting.join(seconds)
        return self.built

    def swap(self, backend: Backend) -> None:
        """Calls that are running end where they began."""
        self._serving, self.built = backend, True


def _swap(
    managed: weakref.ref[Managed], building: Building, open_built: Callable[[], Backend | None]
) -> None:
    """Wait for a build and let it serve; nothing if nobody holds `managed` any more."""
    problem: str | None
    try:
        if not building.wait():
            return
        backend = open_built()
        problem = None if backend is not None else "the engine that was built is not found, or is damaged"
    except Exception as error:  # noqa: BLE001 (`problem` tells it)
        backend, problem = None, str(error) if isinstance(error, HeadwayError) else repr(error)
    holder = managed()
    if holder is None:
        return
    if backend is not None:
        holder.swap(backend)
    else:
        holder.problem = problem
        logging.getLogger("headway").warning("TensorRT does not serve, another engine does: %s", problem)
