"""The asynchronous front: single requests, gathered into batches for a pipeline."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from threading import Condition, Thread, current_thread
from types import TracebackType
from typing import Any, NoReturn, Self

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
PLAIN_VALUES = 10_000
"""values in the settings of a request, at most, that are compared with those of others; a request with more runs alone"""
NESTED = 50
"""levels of lists and objects in settings and inputs that are looked into, at most"""


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

    def __reduce__(self) -> NoReturn:
        """Raises UsageError: threads and waiting requests cannot be copied."""
        raise UsageError(
            "a Front", "cannot be pickled or copied; pickle the pipeline, and make a Front of it there"
        )

    async def __call__(self, given: Input, **settings: Any) -> Result:
        """Predict one input. To cancel the call takes the request out of the queue; its neighbours do not notice.

        Raises:
            InputError: the input is unusable.
            UsageError: a setting is unusable.
            OverloadedError: there was no place in the queue in time.
            UnavailableError: the front is closed, or the worker that had the request ended before the answer.
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
        while running := [worker for worker in self._workers if worker.is_alive()]:
            for worker in running:  # one that fails meanwhile is replaced, as long as requests wait
                await asyncio.to_thread(worker.join)

    def _enter(self, request: _Request) -> None:
        with self._changed:
            if self._closed:
                raise _closed()
            self._start_workers()
            self._outside[request] = None
            self._admit()
            self._changed.notify()

    def _start_workers(self, ended: Thread | None = None) -> None:
        """Start those that are missing. Raises UnavailableError if there is none then. `ended`: one that is ending."""
        self._workers = [worker for worker in self._workers if worker.is_alive() and worker is not ended]
        for place in range(len(self._workers), self._count):
            worker = Thread(target=self._work, name=f"headway-front-{place}", daemon=True)
            try:
                worker.start()
            except RuntimeError as error:
                if not self._workers:
                    raise UnavailableError(
                        "a thread for the front",
                        f"{error}; raise the limit of threads (ulimit -u) or ask again later",
                    ) from error
                return
            self._workers.append(worker)

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
            if not request.admitted.done():
                request.admitted.set_result(None)

    def _work(self) -> None:
        batch: list[_Request] = []
        try:
            while self._next(batch):
                self._answer(batch)
                batch.clear()
        except BaseException as error:  # noqa: BLE001 (the callers see it; the thread ends, and another one takes its place)
            self._replace(batch, error)

    def _replace(self, batch: list[_Request], error: BaseException) -> None:
        """This worker ends by an error that no request has caused: its requests are told, and another one goes on."""
        with self._changed:
            try:
                if self._queue or self._outside or not self._closed:
                    self._start_workers(current_thread())
            except UnavailableError:
                batch = [*batch, *self._queue, *self._outside]
                for request in batch:
                    self._leave(request)
        for request in batch:
            if not request.answer.running() and not request.answer.set_running_or_notify_cancel():
                continue
            _refuse(
                request,
                UnavailableError(
                    "an answer", f"the worker that had the request ended by {error!r}; ask again"
                ),
            )

    def _next(self, batch: list[_Request]) -> bool:
        """Fill in the requests that go together next; False when the front is closed and all are answered."""
        with self._changed:
            while not batch:
                if not self._queue:
                    if self._closed:
                        return False
                    self._changed.wait()
                elif (rest := self._rest()) > 0:
                    self._changed.wait(rest)
                else:
                    self._take(batch)
        return True

    def _rest(self) -> float:
        """Seconds that the batch may still wait for neighbours."""
        if self._closed or not self._deadline or sum(r.tokens for r in self._queue) >= self._batch_tokens:
            return 0.0
        return next(iter(self._queue)).since + self._deadline - time.monotonic()

    def _take(self, batch: list[_Request]) -> None:
        """The oldest request, and of those that came after it and have its settings what the budget holds."""
        tokens = 0
        for request in list(self._queue):
            if batch and request.alike != batch[0].alike:
                continue
            if batch and tokens + request.tokens > self._batch_tokens:
                break
            del self._queue[request]
            batch.append(request)
            if request.answer.set_running_or_notify_cancel():
                tokens += request.tokens
            else:
                batch.pop()
        self._admit()

    def _answer(self, batch: Sequence[_Request]) -> None:
        """Give every request its result, or the error that it alone has caused."""
        readable: list[tuple[_Request, Example]] = []
        for request in batch:
            try:
                readable.append(
                    (request, tasks.read_input(self._pipe.task, request.given, 0, self._pipe.spec))
                )
            except BaseException as error:  # noqa: BLE001 (its caller sees it)
                _refuse(request, error)
        try:
            results = self._pipe.predict([e for _, e in readable], **batch[0].settings) if readable else []
            if len(results) != len(readable):
                raise RuntimeError(f"the pipeline gave {len(results)} results to {len(readable)} inputs")
        except BaseException as error:  # noqa: BLE001 (its caller sees it)
            if len(readable) == 1:
                _refuse(readable[0][0], error)
                return
            left = [request for request, _ in readable]  # one of them is to blame
            for part in (left[: len(left) // 2], left[len(left) // 2 :]):
                self._answer(part)
            return
        for (request, _), result in zip(readable, results, strict=True):
            request.answer.set_result(result)


class _Request:
    """One input that waits for its result."""

    def __init__(self, given: Input, settings: Mapping[str, Any]) -> None:
        self.given = given
        self.settings, self.alike = _comparable(settings)
        self.tokens = SPECIAL_TOKENS + _characters(given) // CHARACTERS_PER_TOKEN
        self.since = time.monotonic()
        self.admitted: Future[None] = Future()
        self.answer: Future[Result] = Future()


def _refuse(request: _Request, error: BaseException) -> None:
    """Give a request an error, in a form that a coroutine can raise without harm to its event loop."""
    if not isinstance(error, Exception) or isinstance(
        error, StopIteration | StopAsyncIteration | CancelledError
    ):
        # as a panic of the tokenizer, or SystemExit, which would end the loop of the caller
        error, cause = RuntimeError(f"the request raised {error!r}"), error
        error.__cause__ = cause
    request.answer.set_exception(error)


def _comparable(settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], object]:
    """Settings as no caller can change them any more, and a key that is equal for equal ones only.

    The key is text, so that no method of a value that a caller has given runs in a worker. Settings with other
    values than those of JSON (and tuples) equal no others: their request runs alone, and fails alone.
    """
    try:
        plain = _copied(settings, [PLAIN_VALUES])
        return plain, repr(sorted(plain.items()))
    except Exception:  # noqa: BLE001 (whatever a value may raise; the pipeline says what is wrong with it)
        return settings, object()


def _copied(value: Any, left: list[int], levels: int = NESTED) -> Any:
    """A copy of plain values. Raises ValueError for others, too many (`left` is counted down) or too deep ones."""
    left[0] -= 1
    kind = type(value)
    if left[0] < 0 or levels < 0:
        raise ValueError
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        return kind(_copied(each, left, levels - 1) for each in value)
    if kind is dict and all(type(name) is str for name in value):
        return {name: _copied(each, left, levels - 1) for name, each in value.items()}
    raise ValueError


def _characters(given: Any, levels: int = NESTED) -> int:
    """Of all texts in an input; 0 for what is none, which is refused later."""
    if isinstance(given, str):
        return len(given)
    if levels and type(given) is dict:
        return sum(_characters(each, levels - 1) for each in given.values())
    if levels and type(given) in (list, tuple):
        return sum(_characters(each, levels - 1) for each in given)
    return 0


def _closed() -> UnavailableError:
    return UnavailableError("the front", "it is closed; open another")
