"""Every encoder task on input that is no text, not usable, very long, or very much of it."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from headway.core import tasks
from headway.core.errors import InputError
from headway.core.tasks import Spec
from headway.runtime.pipeline import WINDOW, EncoderPipeline
from headway.runtime.ragged import Ragged
from tests.fuzz import SEEDS, tokenizers

LENGTH = 24
TAGS = ["O", "B-x", "I-x"]
GIVEN: dict[str, Callable[[Any], Any]] = {
    "text-classification": lambda text: text,
    "sequential-sentence-classification": lambda text: {"sentences": ["first", text]},
    "token-classification": lambda text: text,
    "question-answering": lambda text: ("who came", text),
    "sentence-embedding": lambda text: text,
    "text-ranking": lambda text: ("who came", text),
}
"""an input of each task with a text in it"""
LABELS = {"token-classification": TAGS, "text-ranking": ["relevant"], "question-answering": []}
FINE = SEEDS[0]


class Hashes:
    """Answers that depend on a row's own tokens alone."""

    pads = True

    def __init__(self, task: Any, classes: int) -> None:
        self._task, self._classes = task, classes

    def run(self, batches: Sequence[Ragged]) -> list[dict[str, Any]]:
        return [{name: self._output(batch, name) for name in self._task.READ} for batch in batches]

    def _output(self, batch: Ragged, name: str) -> Any:
        places = self._task.GRAPH[name]  # (B, …)
        shape = [int(batch.lengths.max())] * ("length" in places) + [self._classes] * (places[-1] != "length")
        rows = [batch.ids[batch.offsets[i] : batch.offsets[i + 1]] for i in range(len(batch))]
        seeds = [[len(name), *row.tolist()] for row in rows]
        return np.stack([np.random.default_rng(seed).normal(size=shape) for seed in seeds]).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizers()["bert"]


@pytest.fixture(params=GIVEN)
def pipe(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> EncoderPipeline:
    name = request.param
    task: Any = tasks.load(name)
    labels, manifest = LABELS.get(name, ["a", "b", "c"]), SimpleNamespace(task=name)
    spec = Spec(labels, LENGTH, task.Settings())
    return EncoderPipeline(manifest, "fp32", task, spec, tokenizer, Hashes(task, max(1, len(labels))))  # type: ignore[arg-type]


def ask(pipe: EncoderPipeline, texts: Sequence[Any]) -> list[Any]:
    return pipe([GIVEN[pipe.manifest.task](text) for text in texts])


def test_nothing(pipe: EncoderPipeline) -> None:
    assert pipe([]) == ask(pipe, []) == []


@pytest.mark.parametrize("wrong", ["", " \t\n\u3000", "a\0b", "ab\ud800", 5, None, b"bytes"])
def test_what_is_no_usable_text_is_named(pipe: EncoderPipeline, wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        ask(pipe, [FINE, FINE, wrong, FINE])
    assert caught.value.index == 2


def test_control_characters_and_unknown_signs(pipe: EncoderPipeline) -> None:
    odd = ["\x01\x02", "\u200b\u200d", "\U000e0041", "a\x07b \x1b[0m c", "\u0301\u0301", "\u202eשלום"]
    assert ask(pipe, odd) == [ask(pipe, [text])[0] for text in odd]


def test_a_very_long_text(pipe: EncoderPipeline) -> None:
    """It is read in windows to its end; or cut, and told to be: then what follows has no part in the answer."""
    text = " ".join(SEEDS) * 200
    (found,) = ask(pipe, [text])
    if pipe.manifest.task == "token-classification":
        assert len(text) - 200 < found.entities[-1].end <= len(text)
        assert all(entity.text == text[entity.start : entity.end] for entity in found.entities)
    elif pipe.manifest.task == "question-answering":
        assert any(c.start > len(text) / 2 for c in found.candidates)
        assert all(c.answer == text[c.start : c.end] for c in found.candidates)
    else:
        assert ask(pipe, [text + " what follows"]) == [found]
    assert found.truncated == (pipe.manifest.task not in ("token-classification", "question-answering"))


def test_very_many_texts(pipe: EncoderPipeline) -> None:
    """More than are read at once; each has the answer that it has alone."""
    texts = [f"Ann's refund {i}" for i in range(40)] * (1 + WINDOW // 40)
    found = ask(pipe, texts)
    assert len(found) == len(texts) > WINDOW
    assert found == [ask(pipe, [text])[0] for text in texts[:40]] * (1 + WINDOW // 40)
