"""The same model on several devices, behind one planner."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue

from headway.runtime.backends.base import Backend, Outputs
from headway.runtime.fork_safety import PerProcess
from headway.runtime.ragged import Ragged

TOGETHER = 4
"""batches that a device takes at a time, so that its next one is ready when one is done"""


class Replicas:
    """Batches go to whichever device is idle. Safe to call from several threads."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.pads = backends[0].pads
        self._workers = PerProcess(
            partial(ThreadPoolExecutor, len(backends), thread_name_prefix="headway-device")
        )
        self._idle: SimpleQueue[Backend] = SimpleQueue()
        for backend in backends:
            self._idle.put(backend)

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        if len(batches) == 1:
            return self._run(batches)
        shares = [batches[at : at + TOGETHER] for at in range(0, len(batches), TOGETHER)]
        started: list[Future[list[Outputs]]] = [self._workers().submit(self._run, share) for share in shares]
        return [outputs for share in started for outputs in share.result()]

    def _run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        backend = self._idle.get()
        try:
            return backend.run(batches)
        finally:
            self._idle.put(backend)
