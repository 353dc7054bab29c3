"""The asynchronous front: batches, bounds, cancellation, errors that hit nobody else, shutdown."""

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from headway.bench import soak
from headway.core.errors import InputError, OverloadedError, UnavailableError, UsageError
from headway.runtime import Pipeline, load
from headway.runtime.front import Front
from tests.small import WORDS, small_bundle, texts

HOUR_MS = 3_600_000.0


class Watched:
    """A pipeline that notes its batches; while `go` is not set it does not begin the next."""

    def __init__(self, pipe: Pipeline) -> None:
        self.task, self.spec, self._pipe = pipe.task, pipe.spec, pipe
        self.batches: list[list[str]] = []
        self.settings: list[dict[str, Any]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def predict(self, examples: Sequence[Any], **settings: Any) -> Any:
        self.batches.append([e.text for e in examples])
        self.settings.append(settings)
        self.begun.set()
        self.go.wait()
        if any("poison" in e.text for e in examples):
            raise RuntimeError("the engine failed")
        return self._pipe.predict(examples)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return load(small_bundle(tmp_path_factory.mktemp("small") / "bundle"), threads=1)


@pytest.fixture
def pipe(opened: Pipeline) -> Iterator[Any]:
    watched = Watched(opened)
    yield watched
    watched.go.set()


async def busy(front: Front, pipe: Watched) -> asyncio.Task[Any]:
    """Occupy the engine until `pipe.go` is set."""
    pipe.go.clear()
    pipe.begun.clear()
    first = asyncio.create_task(front("late"))
    await asyncio.to_thread(pipe.begun.wait)
    return first


async def asked(front: Front, given: Sequence[Any], **settings: Any) -> list[asyncio.Task[Any]]:
    """Requests that have reached the front."""
    tasks = [asyncio.create_task(front(one, **settings)) for one in given]
    await asyncio.sleep(0)
    return tasks


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


def test_the_answers_are_those_of_the_pipeline(pipe: Any, opened: Pipeline) -> None:
    some = texts(300)

    async def main() -> None:
        async with Front(pipe) as front:
            assert await asyncio.gather(*map(front, some)) == [opened(text) for text in some]
            assert await front({"text": "late"}) == opened("late")

    run(main)
    assert sorted(text for batch in pipe.batches for text in batch) == sorted([*some, "late"])


def test_requests_gather_while_the_engine_is_busy(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            others = await asked(front, ["great"] * 10)
            pipe.go.set()
            await asyncio.gather(first, *others)

    run(main)
    assert pipe.batches == [["late"], ["great"] * 10]


def test_a_batch_holds_what_the_budget_holds(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe, batch_tokens=12) as front:
            first = await busy(front, pipe)
            others = await asked(
                front, [*["my parcel"] * 7, "where " * 100, "my parcel"]
            )  # 4 tokens, but one
            pipe.go.set()
            await asyncio.gather(first, *others)

    run(main)
    assert [len(batch) for batch in pipe.batches] == [1, 3, 3, 1, 1, 1]


def test_an_idle_engine_does_not_wait_for_the_deadline(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe, deadline_ms=HOUR_MS) as front:
            await front("late")

    run(main)


def test_a_front_that_is_not_eager_waits_until_the_budget_is_full(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe, deadline_ms=HOUR_MS, batch_tokens=12, eager=False) as front:
            await asyncio.gather(*map(front, ["my parcel"] * 3))

    run(main)
    assert [len(batch) for batch in pipe.batches] == [3]


def test_or_until_the_deadline(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe, deadline_ms=500, eager=False) as front:
            await asyncio.gather(*map(front, ["late", "great"]))

    run(main)
    assert pipe.batches == [["late", "great"]]


def test_a_full_queue_refuses(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe, queue=2, patience_ms=0) as front:
            first = await busy(front, pipe)
            others = await asked(front, ["great", "thanks"])
            with pytest.raises(OverloadedError, match="a place in the queue of 2 requests") as caught:
                await front("refund")
            assert (caught.value.exit_code, caught.value.queue) == (5, 2)
            pipe.go.set()
            await asyncio.gather(first, *others)

    run(main)
    assert pipe.batches == [["late"], ["great", "thanks"]]


def test_or_lets_wait_for_a_place(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe, queue=2, patience_ms=HOUR_MS) as front:
            first = await busy(front, pipe)
            others = await asked(front, ["great"] * 7)
            pipe.go.set()
            await asyncio.gather(first, *others)

    run(main)
    assert [len(batch) for batch in pipe.batches] == [1, 2, 2, 2, 1]


def test_a_cancelled_request_leaves_and_gives_its_place_away(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe, queue=2, patience_ms=HOUR_MS) as front:
            first = await busy(front, pipe)
            others = await asked(front, ["great", "thanks", "refund", "broken"])
            for cancelled in (others[0], others[3]):  # from the queue, and from outside of it
                cancelled.cancel()
            await asyncio.wait([others[0], others[3]])
            pipe.go.set()
            await asyncio.gather(first, others[1], others[2])
            assert others[0].cancelled()
            assert others[3].cancelled()

    run(main)
    assert pipe.batches == [["late"], ["thanks", "refund"]]


def test_all_are_cancelled_and_the_next_is_answered(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            everything = [first, *await asked(front, ["great"] * 5)]
            for cancelled in everything:
                cancelled.cancel()
            await asyncio.wait(everything)
            pipe.go.set()
            await front("thanks")

    run(main)
    assert pipe.batches == [["late"], ["thanks"]]


def test_to_cancel_in_the_running_batch_disturbs_no_neighbour(pipe: Any, opened: Pipeline) -> None:
    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            others = await asked(front, ["great", "thanks", "refund"])
            pipe.begun.clear()
            pipe.go.set()
            await first
            await asyncio.to_thread(pipe.begun.wait)
            others[1].cancel()
            assert await asyncio.gather(others[0], others[2]) == [opened("great"), opened("refund")]

    run(main)


def test_an_error_is_its_own_requests_alone(pipe: Any, opened: Pipeline) -> None:
    wrong: list[Any] = ["", 5, "a\ud800", "poison", None]

    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            good, bad = await asked(front, ["great", "thanks"]), await asked(front, wrong)
            pipe.go.set()
            await first
            assert await asyncio.gather(*good) == [opened("great"), opened("thanks")]
            found = await asyncio.gather(*bad, return_exceptions=True)
            assert [type(e) for e in found] == [InputError, InputError, InputError, RuntimeError, InputError]
            assert str(found[1]).startswith("input 0: must be a text")

    run(main)


def test_requests_with_other_settings_wait_for_the_next_batch(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            beams = [
                *await asked(front, ["great"], num_beams=4),
                *await asked(front, ["thanks"], num_beams=2),
            ]
            beams += await asked(front, ["refund"], num_beams=4)
            pipe.go.set()
            await asyncio.gather(first, *beams)

    run(main)
    assert pipe.batches == [["late"], ["great", "refund"], ["thanks"]]
    assert pipe.settings == [{}, {"num_beams": 4}, {"num_beams": 2}]


def test_a_setting_that_does_not_fit_is_told(opened: Pipeline) -> None:
    async def main() -> None:
        async with Front(opened) as front:
            with pytest.raises(UsageError, match="has no settings of a call"):
                await front("late", num_beams=4)

    run(main)


def test_several_event_loops_share_a_front(pipe: Any, opened: Pipeline) -> None:
    front = Front(pipe, queue=3, patience_ms=HOUR_MS)
    some = texts(40)

    def loop(_: int) -> Any:
        async def main() -> Any:
            return await asyncio.gather(*map(front, some))

        return asyncio.run(main())

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(loop, range(4)):
            assert found == [opened(text) for text in some]
    asyncio.run(front.close())


def test_to_close_answers_those_that_wait(pipe: Any) -> None:
    async def main() -> None:
        front = Front(pipe, queue=1, patience_ms=HOUR_MS)
        first = await busy(front, pipe)
        others = await asked(front, ["great"] * 5)
        closing = asyncio.create_task(front.close())
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="the front is not available: it is closed"):
            await front("late")
        pipe.go.set()
        await asyncio.gather(closing, first, *others)
        await front.close()

    run(main)


def test_or_refuses_them(pipe: Any, opened: Pipeline) -> None:
    async def main() -> None:
        front = Front(pipe, queue=1, patience_ms=HOUR_MS)
        first = await busy(front, pipe)
        others = await asked(front, ["great"] * 5)
        closing = asyncio.create_task(front.close(drain=False))
        found = await asyncio.gather(*others, return_exceptions=True)
        assert [type(e) for e in found] == [UnavailableError] * 5
        pipe.go.set()
        assert await first == opened("late")  # it was running
        await closing

    run(main)
    assert pipe.batches == [["late"]]


def test_an_error_in_the_block_does_not_wait_for_the_queue(pipe: Any) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="mine"):
            async with Front(pipe, deadline_ms=HOUR_MS, eager=False) as front:
                await asked(front, ["great"])
                raise ValueError("mine")

    run(main)
    assert pipe.batches == []


@pytest.mark.parametrize(
    "options", [{"deadline_ms": -1}, {"batch_tokens": 0}, {"queue": 0}, {"patience_ms": -1}]
)
def test_numbers_that_make_no_sense(options: dict[str, Any], pipe: Any) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(UsageError, match=rf"^{name}: must be at least {0 if value < 0 else 1}, not {value}$"):
        Front(pipe, **options)


def test_nothing_is_left_running(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe) as front:
            await front("late")

    before = threading.active_count()
    run(main)
    assert threading.active_count() == before


def test_an_unused_front_starts_no_thread(opened: Pipeline) -> None:
    before = threading.active_count()
    asyncio.run(Front(opened).close())
    assert threading.active_count() == before


class Hostile:
    """A setting none of whose methods may run in a worker."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("shown")

    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("copied")


class NoText(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = str.__hash__


def itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


BAD_SETTINGS: list[dict[str, Any]] = [
    {"top_k": np.array([1, 2])},
    {"top_k": Hostile()},
    {"top_k": [Hostile()]},
    {"top_k": {1: Hostile()}},
    {"top_k": NoText("1")},
    {"top_k": {"a": set()}},
    {"top_k": -(10**5000)},
    {"top_k": float("nan")},
    {"top_k": itself()},
    {"top_k": deep()},
    {"top_k": [0] * 1_000_000},
    {"top_k": lambda: 0},
    {"top_k": True},
    {"no such setting": 1},
]


@pytest.mark.parametrize("bad", BAD_SETTINGS, ids=lambda bad: type(next(iter(bad.values()))).__name__)
def test_a_bad_setting_is_its_own_requests_alone(bad: dict[str, Any], opened: Pipeline) -> None:
    async def main() -> None:
        async with Front(opened, eager=False, deadline_ms=50) as front:
            wrong = [*await asked(front, ["great"] * 3, **bad)]
            good = [*await asked(front, ["late"] * 3), *await asked(front, ["thanks"], top_k=1)]
            found = await asyncio.gather(*wrong, return_exceptions=True)
            assert [type(error) for error in found] == [UsageError] * 3
            assert await asyncio.gather(*good) == [*[opened("late")] * 3, opened("thanks", top_k=1)]
            assert await front("refund") == opened("refund")

    run(main)


def test_settings_that_are_equal_in_python_and_differ_in_kind_do_not_meet(pipe: Any) -> None:
    some: list[Any] = [1, True, 1.0, "1", [1], (1,), {"a": 1}, None, float("nan"), float("nan")]

    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            others = [task for value in some for task in await asked(front, ["great"], x=value)]
            pipe.go.set()
            await asyncio.gather(first, *others)

    run(main)
    assert [len(batch) for batch in pipe.batches] == [1] * 9 + [2]  # the two NaNs
    assert [repr(given["x"]) for given in pipe.settings[1:]] == list(map(repr, some[:9]))


def test_settings_that_their_caller_changes_later_are_those_of_the_call(pipe: Any) -> None:
    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            mine = [["a"]]
            others = [*await asked(front, ["great"], x=mine), *await asked(front, ["thanks"], x=[["a"]])]
            mine[0].append("b")
            pipe.go.set()
            await asyncio.gather(first, *others)

    run(main)
    assert pipe.settings[1:] == [{"x": [["a"]]}]


class Endless:
    def __iter__(self) -> Iterator[str]:
        while True:
            yield "text"


class Fields(dict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise StopIteration

    def values(self) -> Any:
        raise SystemExit(3)


def test_inputs_of_any_kind_fail_alone(opened: Pipeline) -> None:
    wrong: list[Any] = [
        Endless(),
        b"bytes",
        itself(),
        deep(),
        {"text": itself()},
        {1: 2},
        Fields(text="a"),
        np.ones(3),
    ]

    async def main() -> None:
        async with Front(opened) as front:
            bad, good = await asked(front, wrong), await asked(front, ["late"] * 3)
            found = await asyncio.gather(*bad, return_exceptions=True)
            assert [isinstance(error, InputError) for error in found] == [True] * 6 + [False, True]
            assert isinstance(found[6], RuntimeError)
            assert await asyncio.gather(*good) == [opened("late")] * 3

    run(main)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(),
        MemoryError(),
        asyncio.CancelledError(),
        CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_exception_ends_a_worker_or_the_loop_of_a_caller(
    error: BaseException, pipe: Any, opened: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = pipe.predict

    def failing(examples: Sequence[Any], **settings: Any) -> Any:
        if any(example.text == "poison" for example in examples):
            raise error
        return predict(examples, **settings)

    monkeypatch.setattr(pipe, "predict", failing)

    async def main() -> None:
        async with Front(pipe) as front:
            first = await busy(front, pipe)
            some = await asked(front, ["great", "poison", "thanks", "refund"])
            pipe.go.set()
            await first
            found = await asyncio.gather(*some, return_exceptions=True)
            assert isinstance(found[1], MemoryError if isinstance(error, MemoryError) else RuntimeError)
            assert [found[0], *found[2:]] == [opened("great"), opened("thanks"), opened("refund")]

    run(main)


def test_a_pipeline_that_gives_too_few_results(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "predict", lambda examples, **_: [])

    async def main() -> None:
        async with Front(pipe) as front:
            found = await asyncio.gather(*map(front, ["great"] * 3), return_exceptions=True)
            assert [str(error) for error in found] == ["the pipeline gave 0 results to 1 inputs"] * 3

    run(main)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_ends_is_replaced_and_its_requests_are_told(
    workers: int, pipe: Any, opened: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        front = Front(pipe, workers=workers)
        answer, ends = front._answer, iter(range(4))

        def ending(batch: Any) -> None:
            if next(ends, None) is not None:
                raise MemoryError
            answer(batch)

        monkeypatch.setattr(front, "_answer", ending)
        for _ in range(4):
            with pytest.raises(
                UnavailableError, match=r"the worker that had the request ended by MemoryError\(\)"
            ):
                await front("late")
        assert await asyncio.gather(*map(front, ["late", "great"])) == [opened("late"), opened("great")]
        assert len(front._workers) == workers
        await front.close()

    run(main)


def test_the_last_worker_that_cannot_be_replaced(
    pipe: Any, opened: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        async with Front(pipe) as front:
            with monkeypatch.context() as changed:
                changed.setattr(threading.Thread, "start", no_thread)
                with pytest.raises(
                    UnavailableError, match="a thread for the front is not available: can't start"
                ):
                    await front("late")
            assert await front("late") == opened("late")

    run(main)


def test_what_cannot_be_copied_says_so(opened: Pipeline) -> None:
    front = Front(opened)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UsageError, match="a Front: cannot be pickled or copied; pickle the pipeline"):
            copied(front)


def test_a_short_soak(opened: Pipeline) -> None:
    """2,000 requests, 1 % of them bad and 10 % cancelled: `python -m headway.bench.soak` makes as many as one likes."""
    asked = soak.Requests(opened, WORDS)

    async def main() -> None:
        assert [size.requests async for size in asked.run(2000)] == list(range(0, 2001, 200))

    run(main)
    assert set(asked.outcomes) == {"right", "refused", "cancelled"}
    assert asked.outcomes.total() == 2000
    assert min(asked.outcomes.values()) > 3
