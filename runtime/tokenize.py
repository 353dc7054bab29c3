"""Step 1: texts to a ragged batch, by the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from headway.core.data import text_problem
from headway.core.errors import BundleError, InputError
from headway.runtime.ragged import Ragged


class Tokenizer:
    """The bundle's tokenizer, set to the model's longest input. Safe to share between threads."""

    def __init__(self, path: Path, max_length: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(path.parent, f"{path.name} cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def __call__(self, texts: Sequence[str]) -> tuple[Ragged, NDArray[np.bool_]]:
        """Token ids of each text, and which texts were cut. Raises InputError for what is not a usable text."""
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(index, f"must be a text, not {type(text).__name__}")
            if (problem := text_problem(text)) is not None:
                raise InputError(index, problem)
        if len(texts) == 1:  # no thread pool to wake
            encodings = [self._tokenizer.encode(texts[0])]
        else:
            encodings = self._tokenizer.encode_batch_fast(texts)
        lengths = [len(e) for e in encodings]
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int32, offsets[-1])
        types = np.fromiter(chain.from_iterable(e.type_ids for e in encodings), np.int32, offsets[-1])
        return Ragged(ids, types, offsets), np.array([bool(e.overflowing) for e in encodings])
