"""The four steps in order: tokenize, plan, run, decode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np

from headway.core.errors import InputError
from headway.core.manifest import Bundle
from headway.core.tasks import Result
from headway.runtime.backends.base import Backend
from headway.runtime.plan import BATCH_TOKENS, plan
from headway.runtime.tasks import Decode
from headway.runtime.tokenize import Tokenizer

WINDOW = 2048
"""texts that `stream` reads ahead, to group them by length"""


class Pipeline:
    """An opened bundle. Safe to share between threads. Made by `headway.runtime.load`."""

    def __init__(
        self,
        manifest: Bundle,
        precision: str,
        tokenizer: Tokenizer,
        backend: Backend,
        decode: Decode,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.manifest, self.precision = manifest, precision
        self._tokenizer, self._backend, self._decode = tokenizer, backend, decode
        self._batch_tokens = batch_tokens

    @overload
    def __call__(self, texts: str) -> Result: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: Sequence[str]) -> list[Result]: ...
    def __call__(self, texts: str | Sequence[str]) -> Result | list[Result]:
        """Predict one text, or many in the order given. Raises InputError, naming the place, for unusable text."""
        if isinstance(texts, str):
            return self._predict([texts])[0]
        if not isinstance(texts, Sequence):
            raise InputError(0, f"wants a text or a sequence of texts, not {type(texts).__name__}")
        return self._predict(texts) if texts else []

    def stream(self, texts: Iterable[str]) -> Iterator[Result]:
        """Predict texts of any number in bounded memory, in the order given."""
        source = iter(texts)
        while window := list(islice(source, WINDOW)):
            yield from self._predict(window)

    def _predict(self, texts: Sequence[str]) -> list[Result]:
        ragged, truncated = self._tokenizer(texts)
        if len(ragged) == 1:
            return list(self._decode(self._backend.run([ragged])[0], truncated, self.manifest.labels))
        batches = plan(ragged.lengths, self._batch_tokens)
        outputs = self._backend.run([ragged.take(rows) for rows in batches])
        together = {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}
        order = np.argsort(np.concatenate(batches))  # from the batches' order back to the caller's
        restored = {name: values[order] for name, values in together.items()}
        return list(self._decode(restored, truncated, self.manifest.labels))
