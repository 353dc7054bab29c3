"""The asynchronous front: single requests, gathered into batches for a pipeline."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

from headway.core import tasks
from headway.core.errors import OverloadedError, UnavailableError, UsageError
from headway.core.tasks import Example, Result
from headway.runtime.fork_safety import ForkAware
from headway.runtime.pipeline import Input, Pipeline

DEADLINE_MS = 5.0
"""milliseconds that a request waits for neighbours, at most, where waiting is wanted"""
BATCH_TOKENS = 2048
"""tokens that go to the pipeline together, about; the pipeline makes its own batches of them"""
QUEUE = 1024
"""requests that have a place in the queue"""
PATIENCE_MS = 1000.0
"""milliseconds that a request waits for a place in the queue"""
CHARACTERS_PER_TOKEN = 4
"""of an English text. The front counts characters: to tokenize is the worker's business"""
SPECIAL_TOKENS = 2
"""that the tokenizer adds to a text"""


class Front(ForkAware):
    """Answers single requests by batches: `async with Front(pipe) as front: result = await front(text)`.

    A worker thread reads, tokenizes and runs; the event loop only waits. Requests may come from any number of
    event loops and threads. They are taken in the order in which they came; those with other settings wait for
    the next batch. A batch starts when a worker is free and

    - the front is eager (nothing is gained by an idle engine), or
    - its token budget is full, or
    - its oldest request has waited `deadline_ms`.
    """

    def __init__(
        self,
        pipe: Pipeline,
        *,
        deadline_ms: float = DEADLINE_MS,
        batch_tokens: int | None = None,
        workers: int | None = None,
        queue: int = QUEUE,
        patience_ms: float = PATIENCE_MS,
        eager: bool = True,
    ) -> None:
        """
        Args:
            deadline_ms: milliseconds that a request waits for neighbours, at most, in front of an idle engine;
                of no effect where the front is eager.
            batch_tokens: tokens in a batch, about; one request may be longer. None: as the pipeline's plan has it, or 2048.
            workers: threads that each answer batches by themselves; more than one is of use for a pipeline that was
                opened with threads=1. None: as the pipeline's plan has it, which is then opened as the plan has it, or 1.
            queue: requests that may wait; more must wait for a place.
            patience_ms: milliseconds that a request waits for a place, at most.
            eager: start what is there when the engine is idle, without waiting for neighbours.
        Raises:
            UsageError: a number that makes no sense.
        """
        following = getattr(pipe, "following", None)
        if batch_tokens is None:
            batch_tokens = BATCH_TOKENS if following is None else following.plan.front_tokens
        if workers is None:
            workers = 1
            if following is not None and following.plan.workers > 1:
                workers, pipe = following.plan.workers, following.worker()
        for name, value, least in (
            ("deadline_ms", deadline_ms, 0),
            ("batch_tokens", batch_tokens, 1),
            ("workers", workers, 1),
            ("queue", queue, 1),
            ("patience_ms", patience_ms, 0),
        ):
            if not value >= least:
                raise UsageError(name, f"must be at least {least}, not {value}")
        self._pipe, self._batch_tokens = pipe, batch_tokens
        self._deadline = 0.0 if eager else deadline_ms / 1000
        self._places, self._patience_ms = queue, patience_ms
        self._closed = False
        self._count = workers
        self._begin()
        super().__init__()

    def _begin(self) -> None:
        self._queue: OrderedDict[_Request, None] = OrderedDict()  # at most `_places`, the oldest first
        self._outside: OrderedDict[_Request, None] = OrderedDict()  # those that want a place
        self._changed = Condition()
        self._workers = list[Thread]()

    def after_fork(self) -> None:
        """The child has an empty queue, and starts workers of its own; what waited is the parent's to answer."""
        self._begin()

    async def __call__(self, given: Input, **settings: Any) -> Result:
        """Predict one input. To cancel the call takes the request out of the queue; its neighbours do not notice.

        Raises:
            InputError: the input is unusable.
            OverloadedError: there was no place in the queue in time.
            UnavailableError: the front is closed.
        """
        request = _Request(given, settings)
        self._enter(request)
        try:
            await self._admission(request)
            return await asyncio.wrap_future(request.answer)
        finally:
            if request.answer.cancel():
                self._leave(request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(drain=kind is None)

    async def close(self, drain: bool = True) -> None:
        """Take no more requests; answer those that wait or, without `drain`, refuse them. May be called again."""
        with self._changed:
            self._closed = True
            refused = [] if drain else [*self._queue, *self._outside]
            for request in refused:
                self._leave(request)
            self._changed.notify_all()
        for request in refused:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(_closed())
        for worker in self._workers:
            await asyncio.to_thread(worker.join)

    def _enter(self, request: _Request) -> None:
        with self._changed:
            if self._closed:
                raise _closed()
            if not self._workers:
                names = [f"headway-front-{i}" for i in range(self._count)]
                self._workers = [Thread(target=self._work, name=name, daemon=True) for name in names]
                for worker in self._workers:
                    worker.start()
            self._outside[request] = None
            self._admit()
            self._changed.notify()

    async def _admission(self, request: _Request) -> None:
        """Wait until the request has a place."""
        if request.admitted.done():
            return
        try:
            admitted = asyncio.wrap_future(request.admitted)
            await asyncio.wait_for(asyncio.shield(admitted), self._patience_ms / 1000)
        except TimeoutError:
            if request.answer.cancel():
                raise OverloadedError(self._places, self._patience_ms) from None

    def _leave(self, request: _Request) -> None:
        """Take a request out of the queue; the next one has its place."""
        with self._changed:
            self._queue.pop(request, None)
            self._outside.pop(request, None)
            if not request.admitted.done():
                request.admitted.set_result(None)
            self._admit()

    def _admit(self) -> None:
        while self._outside and len(self._queue) < self._places:
            request, _ = self._outside.popitem(last=False)
            self._queue[request] = None
            request.admitted.set_result(None)

    def _work(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Request]:
        """The requests that go together next; none when the front is closed and all are answered."""
        with self._changed:
            while True:
                if not self._queue:
                    if self._closed:
                        return []
                    self._changed.wait()
                elif (rest := self._rest()) > 0:
                    self._changed.wait(rest)
                elif batch := self._take():
                    return batch

    def _rest(self) -> float:
        """Seconds that the batch may still wait for neighbours."""
        if self._closed or not self._deadline or sum(r.tokens for r in self._queue) >= self._batch_tokens:
            return 0.0
        return next(iter(self._queue)).since + self._deadline - time.monotonic()

    def _take(self) -> list[_Request]:
        """The oldest request, and of those that came after it and have its settings what the budget holds."""
        batch: list[_Request] = []
        tokens = 0
        for request in list(self._queue):
            if batch and request.settings != batch[0].settings:
                continue
            if batch and tokens + request.tokens > self._batch_tokens:
                break
            del self._queue[request]
            if request.answer.set_running_or_notify_cancel():
                batch.append(request)
                tokens += request.tokens
        self._admit()
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        """Give every request its result, or the error that it alone has caused."""
        readable: list[tuple[_Request, Example]] = []
        for request in batch:
            try:
                readable.append(
                    (request, tasks.read_input(self._pipe.task, request.given, 0, self._pipe.spec))
                )
            except Exception as error:  # noqa: BLE001 (its caller sees it)
                request.answer.set_exception(error)
        try:
            results = self._pipe.predict([e for _, e in readable], **batch[0].settings) if readable else []
        except Exception as error:  # noqa: BLE001 (its caller sees it)
            if len(readable) == 1:
                readable[0][0].answer.set_exception(error)
                return
            for request, _ in readable:  # one of them is to blame
                self._answer([request])
            return
        for (request, _), result in zip(readable, results, strict=True):
            request.answer.set_result(result)


class _Request:
    """One input that waits for its result."""

    def __init__(self, given: Input, settings: Mapping[str, Any]) -> None:
        self.given, self.settings = given, settings
        self.tokens = SPECIAL_TOKENS + _characters(given) // CHARACTERS_PER_TOKEN
        self.since = time.monotonic()
        self.admitted: Future[None] = Future()
        self.answer: Future[Result] = Future()


def _characters(given: Any) -> int:
    """Of all texts in an input."""
    if isinstance(given, str):
        return len(given)
    if isinstance(given, Mapping):
        return _characters(given.values())
    return sum(map(_characters, given)) if isinstance(given, Iterable) else 0


def _closed() -> UnavailableError:
    return UnavailableError("the front", "it is closed; open another")
