"""Beam search beside peers, on real shapes with random weights: `python -m headway.bench.beams --help`.

Every subject writes equally many tokens for the same sources, in fresh processes that take turns. What it writes is
compared with `generate()` in fp32 before its time counts: an fp32 subject that writes other tokens is refused, of int8
the share of equal texts is told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from headway.core.errors import MeasurementError

SOURCE, NEW, BEAMS = 64, 64, 4
"""tokens of a source, tokens that are written, beams"""
BATCHES = (1, 8)
REPEATS = {1: 9, 8: 5}
"""timed runs by sources in a batch, after one that is not"""
END = 1

Ids = list[list[int]]
Write = Callable[[Ids], Ids]
"""from sources to what is written for them"""

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5-small": (
        "T5",
        {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128}
        | {"decoder_start_token_id": 0, "eos_token_id": END, "pad_token_id": 0},
    ),
    "bart-base": (
        "Bart",
        {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072}
        | {"decoder_ffn_dim": 3072, "encoder_attention_heads": 12, "decoder_attention_heads": 12}
        | {"vocab_size": 50265, "bos_token_id": 0, "pad_token_id": 2, "eos_token_id": END}
        | {"decoder_start_token_id": END, "forced_eos_token_id": None},
    ),
}
SUBJECTS = {
    "generate": ("fp32",),
    "headway": ("fp32", "int8"),
    "ctranslate2": ("float32", "int8"),
    "optimum": ("fp32",),
}


def main() -> None:
    """Make what subjects open in --work, measure them, and write --output (JSON); a table goes to standard output."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.beams", description=main.__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder, kept between runs")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--against", default=",".join(SUBJECTS), help="the subjects, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    work = given.work / given.shape
    if given.worker:
        print(json.dumps(measured(given.worker, work, given.threads)))
        return
    if not (work / "checkpoint").is_dir():
        prepare(given.shape, work)
    chosen = [f"{name} {p}" for name in given.against.split(",") for p in SUBJECTS[name]]
    runs: dict[str, list[dict[str, Any]]] = {subject: [] for subject in chosen}
    for _ in range(given.rounds):
        for subject in chosen:
            runs[subject].append(_fresh(subject, given))
            print(subject, runs[subject][-1]["ms"], file=sys.stderr, flush=True)
    given.output.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    print(table(runs))


def _fresh(subject: str, given: Any) -> dict[str, Any]:
    """What a subject says of itself, in a process of its own."""
    python = (
        os.environ.get("HEADWAY_OPTIMUM_PYTHON", sys.executable)
        if subject.startswith("optimum")
        else sys.executable
    )
    start = (
        "import sys, types; sys.modules['headway'] = h = types.ModuleType('headway'); "
        "h.__path__ = [sys.argv.pop(1)]; from headway.bench.beams import main; main()"
    )
    options = [
        "--shape",
        given.shape,
        "--work",
        str(given.work),
        "--output",
        "-",
        "--threads",
        str(given.threads),
    ]
    command = [python, "-c", start, str(Path(__file__).parents[1]), *options, "--worker", subject]
    ran = subprocess.run(command, capture_output=True, check=False, text=True)
    if ran.returncode != 0:
        raise MeasurementError(subject, (ran.stderr.strip().splitlines() or ["nothing"])[-1])
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def measured(subject: str, work: Path, threads: int) -> dict[str, Any]:
    """Median milliseconds by batch size and setting, in this process, and the share of texts that are generate()'s."""
    name, precision = subject.split()
    settings: dict[str, Write] = OPENERS[name](work, precision, threads)
    expected = json.loads((work / "expected.json").read_text())
    found: dict[str, Any] = {"ms": {}, "same": {}, "setting": {}}
    for size in BATCHES:
        times = {}
        for setting, write in settings.items():
            written = write(sources(size))
            if any(len(ids) != NEW for ids in written):
                raise MeasurementError(subject, f"wrote {[len(ids) for ids in written]} tokens, not {NEW}")
            same = statistics.fmean(a == b for a, b in zip(written, expected[:size], strict=True))
            if precision in ("fp32", "float32") and name != "ctranslate2" and same < 1:
                raise MeasurementError(
                    subject, f"wrote other tokens than generate() for {1 - same:.0%} of texts"
                )
            times[setting] = _median(write, size)
            found["same"][str(size)] = same
        best = min(times, key=times.__getitem__)
        found["ms"][str(size)], found["setting"][str(size)] = times[best], best
    return found


def _median(write: Write, size: int) -> float:
    times = []
    for _ in range(REPEATS[size]):
        begin = time.perf_counter()
        write(sources(size))
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def sources(size: int) -> Ids:
    """Always the same."""
    found = np.random.default_rng(0).integers(10, 30000, (max(BATCHES), SOURCE))
    return [ids.tolist() for ids in found[:size]]


def prepare(shape: str, work: Path) -> None:
    """Write the checkpoint, headway's graphs, CTranslate2's models, and what generate() makes of the sources."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    kind, sizes = SHAPES[shape]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    work.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(work / "checkpoint")
    words = {f"t{i}": i for i in range(config.vocab_size)}
    raw = Tokenizer(models.WordLevel(words, unk_token="t3"))
    fast: Any = transformers.PreTrainedTokenizerFast
    fast(tokenizer_object=raw, eos_token=f"t{END}", pad_token=f"t{config.pad_token_id}", unk_token="t3",
         bos_token="t0").save_pretrained(work / "checkpoint")  # fmt: skip
    for precision in SUBJECTS["headway"]:
        _write_graphs(model, precision, work / "headway" / precision)
    converter = import_module("ctranslate2.converters").TransformersConverter
    told = json.loads((work / "checkpoint" / "config.json").read_text())
    (work / "checkpoint" / "config.json").write_text(json.dumps(told | {"normalize_before": False}))
    for precision in SUBJECTS["ctranslate2"]:
        made = converter(str(work / "checkpoint"))
        made.convert(str(work / "ctranslate2" / precision), quantization=precision)
    write = _generate(work, "fp32", len(os.sched_getaffinity(0)))["default"]
    (work / "expected.json").write_text(json.dumps(write(sources(max(BATCHES)))))


def _write_graphs(model: Any, precision: str, folder: Path) -> None:
    """As `headway export` makes them, without the proof."""
    from headway.export import cache, generation, store
    from headway.export.engine import base as engines
    from headway.export.precision import base as precisions

    folder.mkdir(parents=True)
    for role, traced in generation.build(SimpleNamespace(folder=folder, model=model)).items():  # type: ignore[arg-type]
        made = precisions.load(precision).convert(traced.model, [], [])
        made = engines.load("cpu").rewrite(made)
        if role == "decoder":
            made = cache.in_place(made, cache.declare(traced.declared), str(folder))
        store.write(made, folder / f"{role}.onnx")


def _headway(work: Path, precision: str, threads: int) -> dict[str, Write]:
    from headway.core.search import Search
    from headway.runtime.generation.engine import Engine
    from headway.runtime.generation.search import search

    folder = work / "headway" / precision
    engine = Engine({role: folder / f"{role}.onnx" for role in ("encoder", "decoder")}, threads)
    start = json.loads((work / "checkpoint" / "config.json").read_text())["decoder_start_token_id"]
    settings = Search(
        num_beams=BEAMS,
        min_new_tokens=NEW,
        max_new_tokens=NEW,
        eos_token_id=[END],
        decoder_start_token_id=start,
    )
    return {
        "default": lambda given: [h[0].tokens for h in search(engine, given, settings, lambda tokens: "")]
    }


def _generate(work: Path, precision: str, threads: int) -> dict[str, Write]:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    torch.set_num_threads(threads)
    model = AutoModelForSeq2SeqLM.from_pretrained(work / "checkpoint", use_safetensors=True).eval()
    return {"default": lambda given: _written(model, given)}


def _optimum(work: Path, precision: str, threads: int) -> dict[str, Write]:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    made = work / "optimum"
    if not made.is_dir():
        ORTModelForSeq2SeqLM.from_pretrained(work / "checkpoint", export=True).save_pretrained(made)
    model = ORTModelForSeq2SeqLM.from_pretrained(made, session_options=options)
    return {"default": lambda given: _written(model, given)}


def _written(model: Any, given: Ids) -> Ids:
    import torch

    ids = torch.tensor(given)
    lengths = {"num_beams": BEAMS, "min_new_tokens": NEW, "max_new_tokens": NEW, "do_sample": False}
    with torch.inference_mode():
        said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **lengths)
    found: Ids = said[:, 1:].tolist()
    return found


def _ctranslate2(work: Path, precision: str, threads: int) -> dict[str, Write]:
    """One batch on one thread or on all; and a sentence on each thread, which share the weights."""
    opened = import_module("ctranslate2").Translator
    folder = str(work / "ctranslate2" / precision)
    found: dict[str, Write] = {}
    for inter, intra in dict.fromkeys(((1, 1), (1, threads), (threads, 1))):
        translator = opened(
            folder, device="cpu", compute_type=precision, inter_threads=inter, intra_threads=intra
        )
        found[f"{inter} × {intra} threads"] = _translating(translator, inter)
    return found


def _translating(translator: Any, inter: int) -> Write:
    def write(given: Ids) -> Ids:
        said = translator.translate_batch(
            [[f"t{i}" for i in ids] for ids in given],
            beam_size=BEAMS,
            min_decoding_length=NEW,
            max_decoding_length=NEW,
            max_batch_size=-(-len(given) // inter),
        )
        return [[int(token[1:]) for token in one.hypotheses[0]] for one in said]

    return write


OPENERS: dict[str, Callable[[Path, str, int], dict[str, Write]]] = {
    "generate": _generate,
    "headway": _headway,
    "ctranslate2": _ctranslate2,
    "optimum": _optimum,
}


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Medians (smallest and largest of the rounds), in Markdown."""
    lines = [
        "| subject | "
        + " | ".join(f"{n} sources, ms | tokens/s | same texts" for n in BATCHES)
        + " | setting |",
        "|---|" + "--:|" * (3 * len(BATCHES)) + "---|",
    ]
    for subject, every in runs.items():
        cells = []
        for size in map(str, BATCHES):
            times = [run["ms"][size] for run in every]
            middle = statistics.median(times)
            cells += [
                f"{middle:.0f} ({min(times):.0f}–{max(times):.0f})",
                f"{1e3 * int(size) * NEW / middle:.0f}",
                f"{min(run['same'][size] for run in every):.0%}",
            ]
        settings = ", ".join(dict.fromkeys(every[0]["setting"].values()))
        lines.append(f"| {subject} | " + " | ".join(cells) + f" | {settings} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
