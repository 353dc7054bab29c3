"""The four steps in order: tokenize, plan, run, decode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from headway.core import tasks
from headway.core.errors import BundleError, InputError, UnavailableError, UsageError
from headway.core.manifest import Bundle
from headway.core.tasks import EncoderTask, Example, Output, Result, Row, Spec, Task
from headway.runtime.backends.base import Backend
from headway.runtime.cache import Cache, answer_once
from headway.runtime.device_arrays import DeviceArray
from headway.runtime.fork_safety import TokenizerLock
from headway.runtime.plan import BATCH_TOKENS, plan
from headway.runtime.ragged import Ragged
from headway.runtime.tasks import base as decoders
from headway.runtime.tasks import sentence_embedding
from headway.runtime.tuned import Plan

WINDOW = 2048
"""inputs that `stream` reads ahead, to group them by length"""

Input = str | tuple[str, ...] | Mapping[str, Any]
"""a text; texts that belong together, as a pair; or an object with the task's fields, as in a data file"""


class Following(NamedTuple):
    """The plan that a pipeline was opened by, on all threads."""

    plan: Plan
    worker: Callable[[], Pipeline]
    """opens another, on the threads that the plan gives each worker of a front"""


class Opening(NamedTuple):
    """How a pipeline was opened, so that its copy in another process is opened alike."""

    open: Callable[..., Pipeline]
    """`headway.runtime.load`, which this module cannot import"""
    bundle: str
    """an absolute path, or a name on the hub"""
    options: Mapping[str, Any]
    seal: str
    """of the bundle's manifest"""


class Pipeline(ABC):
    """An opened bundle. Safe to share between threads. Made by `headway.runtime.load`.

    What is pickled or copied (`copy.deepcopy`) is how it was opened: the copy opens the bundle again, with the same
    variant and engine, on threads of its own.
    """

    batch_tokens: int
    """padded tokens in a batch, at most"""
    opening: Opening | None = None
    """of one that `headway.runtime.load` has opened"""

    def __init__(
        self,
        manifest: Bundle,
        precision: str,
        task: Task,
        spec: Spec,
        tokenizer: Any,
        following: Following | None = None,
    ) -> None:
        """`following`: for a front that follows the plan, too."""
        self.following = following
        self.manifest, self.precision, self.task, self.spec = manifest, precision, task, spec
        self._tokenizing = TokenizerLock(tokenizer)

    def __reduce__(self) -> tuple[Callable[[Opening], Pipeline], tuple[Opening]]:
        """Raises UsageError for a pipeline that was not opened from a bundle."""
        if self.opening is None:
            raise UsageError(
                "a pipeline", "cannot be pickled or copied where `headway.runtime.load` has not opened it"
            )
        return reopened, (self.opening,)

    @property
    def _tokenizer(self) -> Any:
        return self._tokenizing.tokenizer

    @overload
    def __call__(self, inputs: str | Mapping[str, Any], **settings: Any) -> Result: ...
    @overload
    def __call__(self, inputs: Sequence[Input], **settings: Any) -> list[Result]: ...
    def __call__(
        self, inputs: str | Mapping[str, Any] | Sequence[Input], **settings: Any
    ) -> Result | list[Result]:
        """Predict one input, or many in the order given.

        `settings` are those of `predict`. Raises InputError, naming the place, for unusable inputs.
        """
        if isinstance(inputs, str | Mapping):
            return self.predict([tasks.read_input(self.task, inputs, 0, self.spec)], **settings)[0]
        if not isinstance(inputs, Sequence):
            raise InputError(0, f"wants an input or a sequence of inputs, not {type(inputs).__name__}")
        read = [tasks.read_input(self.task, given, i, self.spec) for i, given in enumerate(inputs)]
        return list(self.each(read, **settings)) if len(read) > WINDOW else self.predict(read, **settings)

    def stream(self, inputs: Iterable[Input], **settings: Any) -> Iterator[Result]:
        """Predict any number of inputs in bounded memory, in the order given."""
        numbered = zip(inputs, count(), strict=False)
        return self.each(
            (tasks.read_input(self.task, given, i, self.spec) for given, i in numbered), **settings
        )

    def each(self, examples: Iterable[Example], **settings: Any) -> Iterator[Result]:
        """As `stream`, of inputs that were read already."""
        source = iter(examples)
        while window := list(islice(source, WINDOW)):
            yield from self.predict(window, **settings)

    @abstractmethod
    def predict(self, examples: Sequence[Example], **settings: Any) -> list[Result]:
        """As a call, of inputs that were read already."""

    def judge(self, examples: Iterable[Example]) -> Iterator[Result]:
        """What the task's metrics compare with gold answers, of labelled examples."""
        return self.each(examples)


def reopened(opening: Opening) -> Pipeline:
    """Open a bundle as another pipeline was opened. Raises what `load` raises, and BundleError for another bundle."""
    pipe = opening.open(opening.bundle, **opening.options)
    if pipe.manifest.seal != opening.seal:
        raise BundleError(
            Path(opening.bundle),
            "it is not the one that the pickled pipeline was opened from; open it by `load`",
        )
    return pipe


class EncoderPipeline(Pipeline):
    """For tasks whose answers come from one pass through an encoder. Settings of its calls: `runtime.tasks`."""

    def __init__(
        self,
        manifest: Bundle,
        precision: str,
        task: EncoderTask,
        spec: Spec,
        tokenizer: Any,
        backend: Backend,
        batch_tokens: int = BATCH_TOKENS,
        cache: Cache | None = None,
        engine: str | None = None,
        following: Following | None = None,
    ) -> None:
        """`engine`: name of the backend, where it has one."""
        super().__init__(manifest, precision, task, spec, tokenizer, following)
        self._encoder_task, self._backend, self.batch_tokens = task, backend, batch_tokens
        self.cache, self.engine = cache, engine

    def predict(self, examples: Sequence[Example], **settings: Any) -> list[Result]:
        call = decoders.settings(self.manifest.task, settings)
        decoder = decoders.load(self.manifest.task)
        examples = decoder.prepare(examples, self.spec, call)
        if not examples:
            return []
        return decoder.decode(examples, self.outputs(examples), self.spec, call)

    def outputs(self, examples: Sequence[Example]) -> list[Output]:
        """The model's inputs for the examples, in order, each with its answer."""
        rows = self._rows(examples)
        return [Output(row, answer) for row, answer in zip(rows, self.answers(rows), strict=True)]

    def _rows(self, examples: Sequence[Example]) -> list[Row]:
        with self._tokenizing:
            return self._encoder_task.rows(examples, self._tokenizer, self.spec)

    def run_device(self, inputs: Mapping[str, object] | str | Sequence[Input]) -> dict[str, DeviceArray]:
        """What the model says, in arrays that stay on its GPU, by the graph's names.

        Args:
            inputs: as of a call; or token ids that lie on the GPU: `input_ids`, `attention_mask` and, where there are
                two segments, `token_type_ids`, each int64 (B, L) without gaps and padded on the right, in anything
                that has `__dlpack__`, as tensors of PyTorch.
        Returns:
            Float32 (B, …), those of tokens (B, L of the longest text, …) with zeros in the padding. `torch.from_dlpack`
            takes them without a copy.
        Raises:
            UsageError: an array that is not as it should be; named.
            InputError: an unusable input; its place is named.
            UnavailableError: the model does not run on one GPU.
        """
        run = getattr(self._backend, "run_device", None)
        if run is None:
            raise UnavailableError("a model on one GPU", "load it with device='cuda'")
        if not inputs:
            raise UsageError("inputs", "are none")
        given: Mapping[str, object] | Ragged
        if isinstance(inputs, Mapping):
            given = inputs
        else:
            every = [inputs] if isinstance(inputs, str) else inputs
            read = [tasks.read_input(self.task, g, i, self.spec) for i, g in enumerate(every)]
            given = Ragged.of(self._rows(read))
        found: dict[str, DeviceArray] = run(given)
        return found

    def similarity(
        self, a: str | Sequence[str], b: str | Sequence[str], **settings: Any
    ) -> NDArray[np.float64]:
        """How alike each text of one side and each of the other are (A, B), by a bundle that embeds."""
        return sentence_embedding.similarity(self, a, b, **settings)

    def answers(self, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        """What the model says to each row: (C), (T, C) or (D). Equal rows are run once and share an array."""
        return answer_once(Ragged.of(rows), self._run, self.cache)

    def _run(self, ragged: Ragged) -> list[NDArray[np.float32]]:
        lengths = ragged.lengths
        if len(ragged) == 1:
            places, batches = [np.zeros(1, np.int64)], [ragged]
        else:
            places = plan(lengths, self.batch_tokens, self._backend.pads)
            batches = [ragged.take(rows) for rows in places]
        every_token = "length" in self._encoder_task.GRAPH[self._encoder_task.READ[0]]
        answers: list[Any] = [None] * len(ragged)
        for rows, outputs in zip(places, self._backend.run(batches), strict=True):
            for i, answer in zip(rows, tasks.joined(self._encoder_task, outputs), strict=True):
                answers[i] = answer[: lengths[i]] if every_token else answer
        return answers
