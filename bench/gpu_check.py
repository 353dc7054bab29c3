"""One NVIDIA GPU checked and timed: `python -m headway.bench.gpu_check --output FOLDER`, which `make gpu-check` runs.

Models of real shapes with random weights, through every engine that is installed for the GPU and through PyTorch in its
best known ways; every subject's answers are compared before it is timed. What cannot be run is said to be so.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from headway.bench import gpu_padding, gpu_writers
from headway.bench.inputs import MESSAGES, of_lengths
from headway.bench.roofline import work
from headway.core import files
from headway.core.errors import HeadwayError
from headway.core.manifest import Bundle, Checkpoint
from headway.core.report import Report, Table
from headway.core.tasks import Row
from headway.export.bundle import export
from headway.export.engine.base import TARGETS
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.runtime.backends.base import engines_for, load_engine
from headway.runtime.ragged import Ragged
from headway.train import checkpoint as opener

SHAPES = {
    "minilm-l6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}  # fmt: skip
"""sizes; the last one is for tests"""
LABELS = [f"label {i}" for i in range(8)]
LENGTH = 256
"""tokens that the models take"""
ONE, MANY = (1, 16), (64, 128)
"""rows and tokens of the batches that are timed"""
MIXED = "16:4,64:3,128:2,250:1"
"""lengths of the texts that go through the pipeline, with their shares"""
AGREE = 0.98
"""share of the texts whose label is that of PyTorch in fp32; random weights put labels close together"""
SIZE = 8192
"""rows and columns of the product that finds the peak"""
COPIED = 1 << 31
"""bytes of the copy that finds the memory's peak"""


@dataclass(frozen=True)
class Machine:
    """Where everything runs."""

    torch: Any
    device: str

    def wait(self) -> None:
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], repeats: int) -> float:
        """Median of one call, from its start to when the device is idle."""
        for _ in range(3):
            call()
        found = []
        for _ in range(repeats):
            self.wait()
            begin = time.perf_counter()
            call()
            self.wait()
            found.append(time.perf_counter() - begin)
        return statistics.median(found)


@dataclass(frozen=True)
class Subject:
    """A model on the device, however it is run."""

    name: str
    batch: Callable[[Any], Any]
    """logits (B, C) of token ids (B, T) without padding, which are on the processor and come back to it"""
    texts: Callable[[list[str]], Any] | None = None
    """labels of texts"""


@dataclass(frozen=True)
class Problem:
    """A subject that cannot be run here."""

    name: str
    why: str


def main() -> None:
    """Check and time; exit code 4 if any answers differ."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.gpu_check", description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for report.json and report.html")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--shape", action="append", choices=SHAPES, help="one of the shapes; may be given several times"
    )
    parser.add_argument("--precision", default="fp32,fp16,bf16")
    parser.add_argument(
        "--writer", action="append", help="a shape of models that write; none: t5-small, bart-base"
    )
    parser.add_argument("--writer-precision", default="fp32,fp16")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--texts", type=int, default=1000)
    given = parser.parse_args()
    import torch

    machine = Machine(torch, given.device)
    peaks = measured_peaks(machine)
    tables, wrong = [], list[str]()
    for shape in given.shape or ["minilm-l6", "bert-base"]:
        with tempfile.TemporaryDirectory() as folder:
            found = shape_table(
                machine, shape, Path(folder), given.precision, given.repeats, given.texts, peaks["operations"]
            )
            parts = [found, *padding_tables(machine, shape, Path(folder), given.precision, given.texts)]
        for table, differing in parts:
            tables.append(table)
            wrong += differing
            head = (table.head, *table.rows)
            print(table.title, *("\t".join(map(str, row)) for row in head), sep="\n", flush=True)
    for table, differing in writer_tables(machine, given.writer, given.writer_precision):
        tables.append(table)
        wrong += differing
        print(
            table.title,
            *("\t".join(map(str, row)) for row in (table.head, *table.rows)),
            sep="\n",
            flush=True,
        )
    report = Report(
        task=f"{name_of(machine)}, torch {torch.__version__}", n=given.texts, metrics=peaks, tables=tables
    )
    with files.whole_folder(given.output, overwrite=True) as folder:
        report.write(folder)
    if wrong:
        print(f"answers differ: {', '.join(wrong)}", file=sys.stderr)
        sys.exit(4)


def name_of(machine: Machine) -> str:
    return "processor" if machine.device == "cpu" else str(machine.torch.cuda.get_device_name())


def measured_peaks(machine: Machine) -> dict[str, float]:
    """Operations and bytes a second that this device reaches: a large product in 16 bits, and a copy."""
    torch, small = machine.torch, machine.device == "cpu"
    size, count = (256, 1 << 20) if small else (SIZE, COPIED)
    a, b = (torch.randn(size, size, device=machine.device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=machine.device)
    target = torch.empty_like(source)
    return {
        "operations": 2 * size**3 / machine.seconds(lambda: a @ b, 10),
        "bytes": 2 * count / machine.seconds(lambda: target.copy_(source), 10),
    }


def shape_table(
    machine: Machine, shape: str, folder: Path, precisions: str, repeats: int, count: int, peak: float
) -> tuple[Table, list[str]]:
    """One row for each subject; names of those whose answers differ from PyTorch's in fp32."""
    checkpoint = random_checkpoint(shape, folder / "checkpoint")
    opened = opener.open_checkpoint(checkpoint)
    bundles = exported(checkpoint, folder, precisions, machine.device)
    first = next(iter(bundles.values()))
    declared = Bundle.read(first)
    texts = [str(text) for text in of_lengths(first, declared, MIXED, count)]
    short = [str(text) for text in of_lengths(first, declared, str(ONE[1]), 1)]
    generator = np.random.default_rng(0)
    one, many = (generator.integers(5, declared.architecture["vocab_size"], sizes) for sizes in (ONE, MANY))
    asked = work(bundles["cpu"], [MANY[1]])
    operations = 0.0 if asked is None else asked.operations
    expected = logits_of(machine, opened.model.to(machine.device), many)
    rows, wrong = [], list[str]()
    subjects = [*own(machine, bundles), *pytorch(machine, opened)]
    labels: Any = None
    for subject in subjects:
        if isinstance(subject, Problem):
            rows.append([subject.name, f"not run: {subject.why}", "", "", "", "", ""])
            continue
        same = float((subject.batch(many).argmax(1) == expected.argmax(1)).mean())
        alone = machine.seconds(partial(subject.batch, one), repeats)
        together = machine.seconds(partial(subject.batch, many), repeats)
        whole, rate = "", ""
        if subject.texts is not None:
            found = subject.texts(texts)
            labels = found if labels is None else labels
            same = min(same, float(np.mean([a == b for a, b in zip(found, labels, strict=True)])))
            whole = f"{1e3 * machine.seconds(partial(subject.texts, short), repeats):.3f}"
            rate = f"{len(texts) / machine.seconds(partial(subject.texts, texts), 3):,.0f}"
        if same < AGREE:
            wrong.append(f"{shape} {subject.name} ({same:.2%} the same)")
        speed = MANY[0] * operations / together
        rows.append(
            [subject.name, f"{100 * same:.1f} %", f"{1e3 * alone:.3f}", whole, f"{MANY[0] / together:,.0f}",
             f"{speed / 1e12:.1f} ({100 * speed / peak:.0f} %)", rate]
        )  # fmt: skip
    head = ["subject", "same label", f"{ONE[0]}×{ONE[1]}, ms", "with tokenization, ms", f"{MANY[0]}×{MANY[1]}, texts/s",
            "T operations/s (of the peak)", f"texts/s of {MIXED}, with tokenization"]  # fmt: skip
    return Table(shape, head, rows), wrong


def padding_tables(
    machine: Machine, shape: str, folder: Path, precisions: str, count: int
) -> list[tuple[Table, list[str]]]:
    """Of the bundle for ONNX Runtime on a GPU, whose graphs without padding no processor runs."""
    if machine.device == "cpu":
        return []
    title, names = f"{shape}, padding", precisions.split(",")
    try:
        return [
            gpu_padding.measure(title, folder / "cuda", names, machine.device, MIXED, count, machine.seconds)
        ]
    except HeadwayError as error:
        return [(Table(title, ["not run"], [[str(error)]]), [])]


def writer_tables(
    machine: Machine, wanted: list[str] | None, precisions: str
) -> Iterator[tuple[Table, list[str]]]:
    """Of models that write; on a processor only those that are asked for."""
    for shape in wanted or ([] if machine.device == "cpu" else gpu_writers.SHAPES):
        with tempfile.TemporaryDirectory() as folder:
            yield gpu_writers.measure(
                shape,
                Path(folder),
                machine.device,
                precisions.split(","),
                gpu_writers.REPEATS,
                machine.seconds,
            )


def random_checkpoint(shape: str, folder: Path) -> Path:
    """A classifier with a WordPiece tokenizer of the words in headway's own texts."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=4000, special_tokens=list(special.values()))
    raw.train([str(MESSAGES)], trainer)
    sep, cls = ((name, cast(int, raw.token_to_id(name))) for name in ("[SEP]", "[CLS]"))
    raw.post_processor = processors.BertProcessing(sep, cls)
    fast: Any = transformers.PreTrainedTokenizerFast
    fast(tokenizer_object=raw, model_max_length=LENGTH, **special).save_pretrained(folder)
    torch.manual_seed(0)
    names, kind = dict(enumerate(LABELS)), cast(Any, transformers.BertConfig)
    config = kind(
        vocab_size=raw.get_vocab_size(), max_position_embeddings=LENGTH, id2label=names,
        label2id={label: i for i, label in names.items()}, initializer_range=0.1, **SHAPES[shape],
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    settings = {"kind": "single", "pair": False, "pooling": "model"}
    Checkpoint(
        task="text-classification", labels=LABELS, max_length=LENGTH, model=shape, training_data={}, options={},
        metrics={}, settings=settings,
    ).write(folder)  # fmt: skip
    return folder


def exported(checkpoint: Path, folder: Path, precisions: str, device: str) -> dict[str, Path]:
    """Bundles by target: fp32 for the processor, by which operations are counted, and all for the device's engines."""
    wanted = {"cpu": "fp32"}
    if device != "cpu":
        wanted |= {target: precisions for target in TARGETS if target != "cpu"}
    for target, names in wanted.items():
        export(checkpoint, ExportOptions(output=folder / target, target=cast(Any, target), precision=names))
    return {target: folder / target for target in wanted}


def own(machine: Machine, bundles: dict[str, Path]) -> Iterator[Subject | Problem]:
    """Every engine with every variant that is made for it."""
    for engine in engines_for(machine.device):
        bundle = bundles[load_engine(engine).TARGET]
        for variant in Bundle.read(bundle).variants:
            name = f"headway {engine} {variant}"
            try:
                pipe: Any = load(bundle, device=machine.device, backend=engine, precision=variant)
            except HeadwayError as error:
                yield Problem(name, str(error))
                continue
            yield Subject(name, partial(_logits, pipe), partial(_labels, pipe))


def _logits(pipe: Any, ids: Any) -> Any:
    batch = Ragged.of([Row(i, row, [0] * len(row)) for i, row in enumerate(ids.tolist())])
    (outputs,) = pipe._backend.run([batch])
    return outputs["logits"]


def _labels(pipe: Any, texts: list[str]) -> list[str]:
    return [result.label for result in pipe(texts)]


def pytorch(machine: Machine, opened: Any) -> Iterator[Subject | Problem]:
    """PyTorch's scaled dot-product attention in fp32; on a GPU in fp16, too, and compiled into CUDA graphs."""
    torch = machine.torch
    ways = ("fp32",) if machine.device == "cpu" else ("fp32", "fp16", "fp16 compiled")
    for way in ways:
        kind = torch.float32 if way == "fp32" else torch.float16
        model = copy.deepcopy(opened.model).to(machine.device, kind)
        if way.endswith("compiled"):
            model = torch.compile(model, mode="reduce-overhead")
        try:
            logits_of(machine, model, np.full(ONE, 5))
        except Exception as error:  # noqa: BLE001 (compilers fail in their own ways)
            yield Problem(f"torch {way}", str(error).splitlines()[0])
            continue
        yield Subject(f"torch {way}", partial(logits_of, machine, model))


def logits_of(machine: Machine, model: Any, ids: Any) -> Any:
    """Logits (B, C) of token ids (B, T), there and back."""
    given = machine.torch.from_numpy(ids).to(machine.device)
    with machine.torch.inference_mode():
        found = model(input_ids=given, attention_mask=machine.torch.ones_like(given)).logits
    return found.float().cpu().numpy()


if __name__ == "__main__":
    main()
