"""Mutated inputs until the time is up: `python -m tests.fuzz alignment|manifest --seconds N --seed S`."""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from headway.core import manifest, tasks
from headway.core.data import text_problem
from headway.core.errors import HeadwayError, InputError
from headway.core.tasks import Output, Row, Spec, question_answering, token_classification
from headway.runtime import load
from headway.runtime.tasks import question_answering as kernel_spans
from headway.runtime.tasks import token_classification as kernel_tags
from tests.small import small_bundle, texts
from tests.test_manifest import small_checkpoint, small_writer

Case = Callable[[random.Random], None]
"""makes one input and tries it; raises AssertionError, of which the last argument is the input"""

ODD = (
    " \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u3000\u200b\u2060\ufeff\x00\x01\x1f\x7f\xad\u200d\u200e\u202e\u0301\u0345\u20dd\ufe0f"
    "aZ9_-'’.,;()[]#@ßıİſŉµªﬁΐ½²Ⅷ①ǅΣςàéñÅ漢字豈東𠀀한국ひﾊﾞشعעבไทยกำदेवकि\u1100\u1161\ufdfa\ufffd\uffff😀👩‍👩‍👧🇩🇪\U0001d400\U000e0041\ud800\udc00"
)
"""characters that tokenizers treat in ways of their own"""
WHITE = " \t\n\r\xa0\u2003\u3000"
"""what is white space to everyone"""
SEEDS = (
    "Ann Lee's refund of 25.99 € was late (again).",
    "naïve Straße [MASK] ﬁancée e\u0301te\u0301",
    "東京都 にいる 한국어 नमस्ते ไทย",
    "<s> word</s> [SEP] ##ing ▁low  double   spaces\n\nlines\t",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**40, 0.5, -1e308, math.nan, math.inf, "", "fp32", "../x", "\ud800"),
    *("a\0b", "x" * 5000, [], [[]], {}, {"a": 1}, ["O", "O"], [0, -1], "fp32/model.onnx", "model", "int64", "length"),
)  # fmt: skip


def mutated(text: str, chance: random.Random) -> str:
    """A text with some places changed, repeated, moved or dropped."""
    for _ in range(chance.randint(1, 8)):
        begin = chance.randint(0, len(text))
        end = min(len(text), begin + chance.choice((0, 1, 1, 2, 5, 20)))
        some = (
            "".join(chance.choices(ODD, k=chance.randint(0, 6))),
            chr(chance.randrange(0x110000)),
            text[begin:end] * 2,
        )
        text = text[:begin] + chance.choice((*some, text[begin:end].swapcase(), "")) + text[end:]
    return text


def tokenizers() -> dict[str, Tokenizer]:
    """Of the kinds that models have: by words with and without accents, by bytes, by pieces with a sign for spaces."""
    corpus, special = [*SEEDS, *texts(200)], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    parts: dict[str, tuple[Any, Any, Any, Any]] = {
        "bert": (normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer(), "##", decoders.WordPiece()),
        "cased": (normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer(), "##", decoders.WordPiece()),
        "bytes": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), None, decoders.ByteLevel()),
        "composed": (normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=True), None, decoders.ByteLevel()),
        "pieces": (normalizers.NFKC(), pre_tokenizers.Metaspace(), None, decoders.Metaspace()),
    }  # fmt: skip
    made = {}
    for name, (normalizer, splitter, prefix, decoder) in parts.items():
        own: Any = Tokenizer(models.WordPiece(unk_token="[UNK]") if prefix else models.BPE(unk_token="[UNK]"))  # type: ignore[call-arg]
        own.pre_tokenizer, own.decoder = splitter, decoder
        if normalizer is not None:
            own.normalizer = normalizer
        options: dict[str, Any] = {"vocab_size": 500, "special_tokens": special, "show_progress": False}
        if prefix is None:
            alphabet = pre_tokenizers.ByteLevel.alphabet() if isinstance(decoder, decoders.ByteLevel) else []
            trainer: Any = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
        else:
            trainer = trainers.WordPieceTrainer(**options)
        own.train_from_iterator(corpus, trainer)
        ends = [(token, own.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        own.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
        made[name] = own
    return made


def alignment(folder: Path) -> Case:
    """Words, entities, answers and cut texts, by every tokenizer."""
    every = tokenizers()

    def case(chance: random.Random) -> None:
        text = mutated(chance.choice((*SEEDS, " ".join(SEEDS))), chance)
        kind, length = chance.choice(list(every)), chance.randint(9, 40)
        made = (kind, length, text)
        try:
            if text_problem(text) is not None:
                _refused(text)
            else:
                _words(text)
                _tags(text, every[kind], length, chance)
                _answers(text, every[kind], length, chance)
                _beginnings(text, every[kind], length, chance)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}", made) from error

    return case


def _refused(text: str) -> None:
    for task, given in (("token-classification", text), ("question-answering", ("Who?", text))):
        try:
            tasks.read_input(tasks.load(task), given, 0)
        except InputError:
            continue
        raise AssertionError(f"{task} takes it")


def _words(text: str) -> None:
    after = 0
    for begin, end in token_classification.words_of(text):
        assert after <= begin < end <= len(text), "words overlap"
        assert not any(c.isalnum() for c in text[after:begin]), "letters outside of words"
        after = end
    assert not any(c.isalnum() for c in text[after:]), "letters outside of words"


def _random_logits(rows: list[Row], classes: int, chance: random.Random) -> list[Output]:
    numbers = np.random.default_rng(chance.randrange(2**32))
    return [Output(row, numbers.normal(size=(len(row.ids), classes)).astype(np.float32)) for row in rows]


def _tags(text: str, tokenizer: Tokenizer, length: int, chance: random.Random) -> None:
    task: Any = token_classification
    spec = Spec(["O", "B-x", "I-x", "B-y", "I-y"], length, task.Settings(stride=chance.randint(0, 20)))
    example = tasks.read_input(task, text, 0)
    rows = task.rows([example], tokenizer, spec)
    assert {w for row in rows for w, _ in row.marks} <= set(range(len(example.words))), "a word that is none"
    outputs = _random_logits(rows, 5, chance)
    (fast,) = kernel_tags.decode([example], outputs, spec, kernel_tags.Call())
    assert fast.entities == task.decode([example], outputs, spec)[0].entities, "the kernel finds others"
    after = 0
    for entity in fast.entities:
        assert after <= entity.start < entity.end <= len(text), "entities overlap"
        assert entity.text == text[entity.start : entity.end], "an entity has another text"
        assert entity.text.strip(WHITE) == entity.text, "white space around an entity"
        after = entity.end


def _answers(text: str, tokenizer: Tokenizer, length: int, chance: random.Random) -> None:
    task: Any = question_answering
    spec = Spec([], length, task.Settings(stride=chance.randint(0, 20), unanswerable=chance.random() < 0.5))
    question = mutated("Who came late?", chance)
    if text_problem(question) is not None:
        return
    example = tasks.read_input(task, (question, text), 0)
    outputs = _random_logits(task.rows([example], tokenizer, spec), 2, chance)
    call = kernel_spans.Call(candidates=chance.choice((None, 3)))
    (fast,) = kernel_spans.decode([example], outputs, spec, call)
    (plain,) = task.decode([example], outputs, spec, call.candidates)
    assert (fast.answer, fast.start, fast.end) == (plain.answer, plain.start, plain.end), (
        "the kernel finds another"
    )
    for answer in (fast, *fast.candidates) if fast.answer else fast.candidates:
        assert answer.answer == text[answer.start : answer.end] == answer.answer.strip() != "", (
            "no piece of the context"
        )


def _beginnings(text: str, tokenizer: Tokenizer, length: int, chance: random.Random) -> None:
    many = (text * 90)[:3000]
    pair: Any = chance.choice(((text, many), (many, text), (text * 3, many)))
    given, special = (
        (pair, True) if chance.random() < 0.1 else (many, chance.random() < 0.5)
    )  # pairs take long
    (fast,) = tasks.encode(tokenizer, [given], length, offsets=False, special=special)
    tokenizer.enable_truncation(length)
    whole = tokenizer.encode(*([given] if isinstance(given, str) else given), add_special_tokens=special)
    assert (fast.ids, fast.type_ids) == (whole.ids, whole.type_ids), "a cut text has other tokens"
    assert bool(fast.overflowing) == bool(whole.overflowing), "it is not told that a text was cut"


def manifests(folder: Path) -> Case:
    """Bundles and checkpoints whose manifest was changed, and sealed again or not."""
    bundle, writer, checkpoint = (folder / name for name in ("bundle", "writer", "checkpoint"))
    small_bundle(bundle)
    for place, declared in ((writer, small_writer()), (checkpoint, small_checkpoint())):
        place.mkdir()
        declared.write(place)
    readers: dict[Path, Callable[[Path], Any]] = {
        bundle: lambda place: load(place, threads=1, backend="onnxruntime")("where is my parcel"),
        writer: manifest.Bundle.read,
        checkpoint: manifest.Checkpoint.read,
    }
    whole = {place: json.loads((place / manifest.NAME).read_text("utf-8")) for place in readers}

    def case(chance: random.Random) -> None:
        place = chance.choice(list(readers))
        content = _changed(whole[place], chance)
        if "seal" in content and chance.random() < 0.9:
            del content["seal"]
            with suppress(UnicodeEncodeError):
                content["seal"] = manifest._seal(content)
        raw = json.dumps(content).encode()
        if chance.random() < 0.2:
            at = chance.randrange(len(raw))
            raw = raw[:at] + chance.randbytes(chance.randint(0, 3)) + raw[at + chance.randint(0, 3) :]
        (place / manifest.NAME).write_bytes(raw)
        try:
            readers[place](place)
        except HeadwayError:
            pass
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error}", place.name, raw) from error

    return case


def _changed(content: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy with some fields dropped, replaced, added or exchanged."""
    made = copy.deepcopy(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = list(_places(made))
        owner, key = chance.choice(places)
        how = chance.randrange(4)
        if how == 0:
            del owner[key]
        elif how == 1:
            other, name = chance.choice(places)
            owner[key] = copy.deepcopy(other[name]) if _has(other, name) else None
        elif how == 2 and isinstance(owner, dict):
            owner[chance.choice(("", "model", "decoder", "kind", "\ud800", "a/b"))] = copy.deepcopy(
                chance.choice(VALUES)
            )
        else:
            owner[key] = copy.deepcopy(chance.choice(VALUES))
        if not made:
            return copy.deepcopy(content)
    return made


def _has(owner: Any, key: Any) -> bool:
    return key in owner if isinstance(owner, dict) else key < len(owner)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(content) if isinstance(content, dict) else range(len(content))
    for key in keys:
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])


TARGETS = {"alignment": alignment, "manifest": manifests}


def run(target: str, seconds: float, seed: int, only: int | None = None) -> int:
    """The number of cases tried. The first that fails raises AssertionError with its input and how to repeat it."""
    with tempfile.TemporaryDirectory() as folder:
        case = TARGETS[target](Path(folder))
        number, end = only or 0, time.monotonic() + seconds
        while number == (only or 0) or (only is None and time.monotonic() < end):
            try:
                case(random.Random(f"{seed}:{number}"))
            except AssertionError as error:
                again = f"python -m tests.fuzz {target} --seed {seed} --case {number}"
                raise AssertionError(f"{error.args[0]}\n{again}\n{error.args[-1]!a}") from error
            number += 1
    return number


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("target", choices=TARGETS)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--case", type=int, help="only this one")
    given = options.parse_args()
    print(f"{run(given.target, given.seconds, given.seed, given.case)} cases")


if __name__ == "__main__":
    main()
