"""Beam search on a GPU beside `generate()`: real shapes with random weights, the same number of tokens for the same sources.

Every subject's texts are compared before its time counts: with those that `generate()` writes in the same precision, and
with those that headway writes in fp32 on the processor. Graphs come without the proof that `headway export` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from headway.bench import shapes
from headway.bench.writers.base import told
from headway.bench.writers.generate import opened as pytorch_model
from headway.core import files
from headway.core.errors import HeadwayError
from headway.core.manifest import Bundle, File, Variant
from headway.core.report import Table
from headway.core.search import Search
from headway.core.tolerance import PRECISION
from headway.runtime.backends.base import engines_for, load_engine
from headway.runtime.generation.base import Writer
from headway.runtime.generation.gpu.beams import BeamSearch, Work
from headway.runtime.generation.search import search
from headway.runtime.load import WRITERS, open_writer

SOURCE, NEW, BEAMS = 64, 64, 4
"""tokens of a source and of its text; beams"""
SHAPES = ("t5-small", "bart-base")
REPEATS = 5
BATCHES = (1, 32)
"""sources at once"""
CHECKED = 4
"""sources whose texts are compared with the processor's, which takes long"""
HEAD = ["subject", "sources", "same texts as generate()", "same as fp32 on the processor", "ms", "tokens/s", "of generate()'s speed",
        "between decoder runs"]  # fmt: skip

Texts = list[list[int]]
Seconds = Callable[[Callable[[], object], int], float]
"""of one call, the median of so many"""


@dataclass(frozen=True)
class Subject:
    """A way to write."""

    name: str
    write: Callable[[Texts], Texts]
    between: Callable[[float, int, Seconds], str] = lambda took, sources, seconds: ""
    """share of a step that is not the decoder's, by the seconds that so many sources took"""


def measure(shape: str, folder: Path, device: str, precisions: Sequence[str], repeats: int, seconds: Seconds,
            batches: Sequence[int] = BATCHES, new: int = NEW) -> tuple[Table, list[str]]:  # fmt: skip
    """One row for each subject and number of sources; names of those in fp32 that write other texts."""
    checkpoint = folder / "checkpoint"
    shapes.write(shape, checkpoint)
    settings = settings_of(checkpoint, new)
    words = shapes.SHAPES[shape][1]["vocab_size"]
    sources = np.random.default_rng(0).integers(shapes.SPECIAL, words, (max(batches), SOURCE)).tolist()
    plain = writer(bundle_of(checkpoint, folder / "cpu", "cpu", "fp32"), "onnxruntime", "cpu")
    expected = texts_of(plain, settings, sources[:CHECKED])
    rows, wrong = list[list[Any]](), list[str]()
    for precision in precisions:
        ours = list(subjects(checkpoint, folder, device, precision, settings))
        theirs = generate(checkpoint, device, precision, settings)
        for size in batches:
            given = sources[:size]
            wanted = theirs.write(given)
            took = seconds(partial(theirs.write, given), repeats)
            rows.append([theirs.name, size, "", same(wanted, expected), *speed(took, size, new), "1.00", ""])
            for subject in ours:
                if isinstance(subject, str):
                    rows.append([subject, size, *[""] * 6])
                    continue
                found = subject.write(given)
                own = seconds(partial(subject.write, given), repeats)
                rows.append(
                    [subject.name, size, same(found, wanted), same(found, expected), *speed(own, size, new), f"{took / own:.2f}",
                     subject.between(own, size, seconds)]
                )  # fmt: skip
                if precision == "fp32" and share(found, expected) < PRECISION["fp32"].identical:
                    wrong.append(f"{shape} {subject.name} ({same(found, expected)} the same)")
    return Table(f"{shape}, {BEAMS} beams, {SOURCE} to {new} tokens", HEAD, rows), wrong


def settings_of(checkpoint: Path, new: int) -> Search:
    names = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
    own = {n: v for n, v in told(checkpoint).items() if n in names and v is not None}
    return Search().changed(num_beams=BEAMS, max_new_tokens=new, min_new_tokens=new, **own)


def share(found: Texts, wanted: Texts) -> float:
    """Of the texts that both have, those that are the same."""
    return float(np.mean([a == b for a, b in zip(found, wanted, strict=False)]))


def same(found: Texts, wanted: Texts) -> str:
    return f"{share(found, wanted):.0%}"


def speed(took: float, sources: int, new: int) -> list[str]:
    return [f"{1e3 * took:.1f}", f"{sources * new / took:,.0f}"]


def bundle_of(checkpoint: Path, folder: Path, target: str, precision: str) -> Path:
    """What the runtime needs of a bundle: graphs, and a manifest of them."""
    from headway.export import cache as caches
    from headway.export import halves, store
    from headway.export.engine import base as engines
    from headway.export.precision import base as precisions

    longest, every = traced(checkpoint)
    (folder / precision).mkdir(parents=True)
    graphs, types = {}, dict[str, Any]()
    for role, found in every.items():
        made = precisions.load(precision).convert(store.twin(found.model), [], [])
        graphs[role] = found.declared
        if target == "cpu":
            made = engines.load(target).rewrite(made)
        else:
            types |= halves.narrow(made, types)
        if role == "decoder":
            graphs[role] = caches.declare(found.declared, target)
            made = caches.in_place(made, graphs[role], str(checkpoint), target)
        if target != "cpu":
            made = engines.load(target).rewrite(made)
        store.write(made, folder / precision / f"{role}.onnx")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    Bundle(
        task="text2text-generation", labels=[], max_length=SOURCE, pad_id=0, graphs=graphs, architecture={}, made_by={}, source={},
        longest=longest, search={"decoder_start_token_id": 0},
        variants={precision: Variant(
            precision=precision, target=target, graphs={role: f"{precision}/{role}.onnx" for role in graphs},
            parity={"worst": 0.0, "neighbours": 0.0, "agreement": 0.0},
        )},
        files={path.relative_to(folder).as_posix(): File(bytes=path.stat().st_size, sha256=files.sha256(path)) for path in paths},
    ).write(folder)  # fmt: skip
    return folder


@cache
def traced(checkpoint: Path) -> tuple[int | None, dict[str, Any]]:
    """Tokens that the decoder has positions for, and the graphs of both halves."""
    from headway.export import generation, generation_settings

    read: Any = SimpleNamespace(folder=checkpoint, model=pytorch_model(checkpoint))
    return generation_settings.longest(read), generation.build(read)


def writer(bundle: Path, engine: str, device: str) -> Writer:
    """Raises HeadwayError."""
    declared = Bundle.read(bundle)
    (variant,) = declared.variants.values()
    graphs = {role: bundle / name for role, name in variant.graphs.items()}
    if engine == "tensorrt":
        _build(bundle, declared)
    return open_writer(engine, bundle, declared, graphs, device)


def _build(bundle: Path, declared: Bundle) -> None:
    from headway.runtime.cuda import Device
    from headway.runtime.shapes import Shapes
    from headway.runtime.tensorrt.ahead import build_engines
    from headway.runtime.tensorrt.key import Options, Target
    from headway.runtime.tensorrt.library import open_library

    library, gpu = open_library(), Device()
    gpu.use()
    for _ in build_engines(bundle, library, [Target.of(gpu)], Options(shapes=Shapes(declared.max_length))):
        pass


def subjects(
    checkpoint: Path, folder: Path, device: str, precision: str, settings: Search
) -> Iterator[Subject | str]:
    """headway by every engine for the device; or why one cannot be run here."""
    for engine in engines_for(device):
        target = load_engine(engine).TARGET
        if engine not in WRITERS:
            continue
        name = f"headway {engine} {precision}"
        try:
            bundle = bundle_of(checkpoint, folder / f"{target}-{precision}", target, precision)
            opened = writer(bundle, engine, device)
        except HeadwayError as error:
            yield f"{name}: not run: {error}"
            continue
        yield Subject(name, partial(texts_of, opened, settings), partial(between, opened, settings))


def texts_of(opened: Writer, settings: Search, sources: Texts) -> Texts:
    """The best text of each source."""
    return [found[0].tokens for found in search(opened, sources, settings, lambda tokens: "")]


def between(opened: Writer, settings: Search, took: float, sources: int, seconds: Seconds) -> str:
    """Share of a step's time that the decoder does not take: to choose tokens, to take over caches, and to wait."""
    held = next(
        (h for every in getattr(opened, "_idle", {}).values() for h in every if h.batch == sources), None
    )
    if not isinstance(held, BeamSearch):
        return ""
    steps = (settings.max_new_tokens or 1) - 1
    begin = seconds(held.work[0].start, 3)
    decoder = Work(held.model, held.steps.give)

    def every_step() -> None:
        for _ in range(steps):
            decoder.start()

    alone = seconds(every_step, 3)
    return f"{1 - alone / (took - begin):.1%}"


def generate(checkpoint: Path, device: str, precision: str, settings: Search) -> Subject:
    """PyTorch, with its scaled dot-product attention."""
    import torch

    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    model = pytorch_model(checkpoint, kind).to(device)

    def write(sources: Texts) -> Texts:
        ids = torch.tensor(sources, device=device)
        with torch.inference_mode():
            said = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=settings.num_beams, do_sample=False,
                min_new_tokens=settings.min_new_tokens, max_new_tokens=settings.max_new_tokens,
            )  # fmt: skip
        return [row[: settings.max_new_tokens] for row in said[:, 1:].tolist()]

    return Subject(f"generate() {precision}", write)
