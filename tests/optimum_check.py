"""Run by `make optimum-check`: optimum-onnx opens bundle/fp32 and says what the checkpoint says, for encoders and decoders.

BUNDLE CHECKPOINT compares a bundle with the checkpoint as transformers opens it, and with --expected FILE, which is
needed where transformers does not know the head. `--make FOLDER`, run where headway is installed, writes a tiny
bundle of each kind with its checkpoint and what PyTorch says; `--check FOLDER` compares all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

Rows = list[list[int]]
Answers = dict[str, Any]
"""by output: a tensor (B, …), or one row's numbers"""

LIMIT = 1e-4
"""largest difference of an output, absolute: fp32 on both sides"""
SIZES = (1, 7, 1000)
"""rows in a batch"""
LONGEST = 128
"""tokens in a row"""
OPENED_BY = {
    "text-classification": ("ORTModelForSequenceClassification", "AutoModelForSequenceClassification"),
    "text-ranking": ("ORTModelForSequenceClassification", "AutoModelForSequenceClassification"),
    "token-classification": ("ORTModelForTokenClassification", "AutoModelForTokenClassification"),
    "question-answering": ("ORTModelForQuestionAnswering", "AutoModelForQuestionAnswering"),
    "sentence-embedding": ("ORTModelForCustomTasks", "AutoModel"),
    "sequential-sentence-classification": ("ORTModelForCustomTasks", None),
}
"""classes of optimum-onnx and of transformers, for encoders; an encoder-decoder's graphs have other inputs than it gives"""
WRITERS = ("gpt2", "llama")
PROMPTS = ["Where is my", "I want a refund, please, as it", "It"]
NEW, BEAMS = 12, (1, 4)
"""tokens, and beams that they are searched with"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument(
        "--expected", type=Path, help="JSON that --make wrote: rows and what PyTorch says to them"
    )
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--check", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.make is not None:
        make(given.make)
        return
    if given.check is None and given.checkpoint is None:
        parser.error("give BUNDLE and CHECKPOINT, or --check FOLDER, or --make FOLDER")
    found = [(given.bundle, given.checkpoint, given.expected)]
    if given.check is not None:
        made = sorted(path.parent for path in given.check.glob("*/bundle"))
        found = [(path / "bundle", path / "checkpoint", path / "expected.json") for path in made]
    print(f"optimum-onnx {version('optimum-onnx')}, transformers {version('transformers')}")
    worst = [check(*one) for one in found]
    sys.exit(0 if worst and max(worst) <= LIMIT else 4)


def make(folder: Path) -> None:
    """Write FOLDER/KIND/{bundle, checkpoint, expected.json} for each kind of data, and each architecture."""
    import transformers

    from headway.export.bundle import export
    from headway.export.options import ExportOptions
    from tests.test_architectures import ENCODERS, model_of
    from tests.test_export_tasks import DATA

    for kind in DATA:
        _make_one(kind, model_of("bert", transformers.AutoModel, folder / kind / "model"), folder / kind)
    for name in ENCODERS[1:]:
        own = folder / f"tags-{name}"
        _make_one("tags", model_of(name, transformers.AutoModel, own / "model"), own)
    for name in WRITERS:
        own = folder / f"text-{name}"
        export(
            model_of(name, transformers.AutoModelForCausalLM, own / "checkpoint"),
            ExportOptions(output=own / "bundle", task="text-generation", precision="fp32", threads=1),
        )


def _make_one(kind: str, model: Path, folder: Path) -> None:
    from headway.core.manifest import Bundle
    from headway.export import encoders
    from headway.export.bundle import export
    from headway.export.options import ExportOptions
    from headway.train import checkpoint
    from tests.test_export_tasks import untrained

    made, _ = untrained(kind, model, folder)
    export(made, ExportOptions(output=folder / "bundle", precision="fp32", threads=1))
    opened = checkpoint.open_checkpoint(made)
    rows = encoders.rows(opened.tokenizer.backend_tokenizer, opened.spec)
    names = [tensor.name for tensor in Bundle.read(folder / "bundle").graphs["model"].outputs]
    answers = [checkpoint.outputs(opened, [row]) for row in rows]
    expected = {
        "ids": [row.ids for row in rows],
        "types": [row.types for row in rows],
        "answers": {name: [answer[name][0].tolist() for answer in answers] for name in names},
    }
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def check(bundle: Path, checkpoint: Path, expected: Path | None) -> float:
    """The largest difference of a bundle's outputs from those of PyTorch."""
    import optimum.onnxruntime

    manifest = json.loads((bundle / "headway.json").read_text("utf-8"))
    if manifest["task"] == "text-generation":
        return written(bundle, checkpoint)
    if manifest["task"] not in OPENED_BY:
        sys.exit(f"{bundle}: optimum-onnx has no class for the graphs of {manifest['task']}")
    name, auto = OPENED_BY[manifest["task"]]
    opened = getattr(optimum.onnxruntime, name).from_pretrained(bundle / "fp32")
    known = transformers_model(checkpoint, auto, manifest) if auto else None
    if known is None and expected is None:
        sys.exit(f"{checkpoint}: transformers does not know its head: give --expected")
    figures: dict[str, float] = {}
    if known is not None:
        figures["transformers"] = against_model(opened, known, bundle / "tokenizer.json", manifest)
    if expected is not None:
        figures["expected"] = against_file(opened, json.loads(expected.read_text("utf-8")), manifest)
    told = ", ".join(f"{by} {figure:.2g}" for by, figure in figures.items())
    print(f"{bundle}: {manifest['task']}, {manifest['architecture']['model_type']}, {name}: worst {told}")
    return max(figures.values())


def written(bundle: Path, checkpoint: Path) -> float:
    """0 if a decoder writes what it writes in transformers, greedily and with beams, from prompts of several lengths."""
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_padding(direction="left")
    encoded = tokenizer.encode_batch(PROMPTS, add_special_tokens=False)
    prompts = {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }
    opened = ORTModelForCausalLM.from_pretrained(bundle / "fp32", file_name="decoder-appending.onnx")
    models = (opened, AutoModelForCausalLM.from_pretrained(checkpoint).eval())
    same = True
    for beams in BEAMS:
        found, wanted = (
            m.generate(**prompts, num_beams=beams, max_new_tokens=NEW, do_sample=False) for m in models
        )
        same = same and found.tolist() == wanted.tolist()
    print(f"{bundle}: text-generation, ORTModelForCausalLM: {'the same tokens' if same else 'OTHER TOKENS'}")
    return 0.0 if same else float("inf")


def transformers_model(
    checkpoint: Path, auto: str, manifest: dict[str, Any]
) -> Callable[..., Answers] | None:
    """The checkpoint in transformers, from inputs to outputs by name; None if it does not know the head."""
    import torch
    import transformers

    model, info = getattr(transformers, auto).from_pretrained(checkpoint, output_loading_info=True)
    if any(auto != "AutoModel" or "pooler" not in key for key in info["missing_keys"]):
        return None
    model.eval()

    def run(**batch: Any) -> Answers:
        with torch.inference_mode():
            said = dict(model(**batch))
        if auto == "AutoModel":
            settings = manifest["settings"]
            return {
                "sentence_embedding": _pooled(said["last_hidden_state"], batch["attention_mask"], settings)
            }
        return said

    return run


def _pooled(hidden: Any, mask: Any, settings: dict[str, Any]) -> Any:
    """Vectors (B, D) of texts, from their tokens' (B, T, D)."""
    mask = mask[..., None]
    if settings["pooling"] == "cls":
        vectors = hidden[:, 0]
    elif settings["pooling"] == "mean":
        vectors = (hidden * mask).sum(1) / mask.sum(1)
    else:
        vectors = hidden.masked_fill(mask == 0, float("-inf")).amax(1)
    return vectors / vectors.norm(dim=-1, keepdim=True) if settings["normalize"] else vectors


def against_model(
    opened: Any, known: Callable[..., Answers], tokenizer: Path, manifest: dict[str, Any]
) -> float:
    """The largest difference on headway's own texts."""
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(tokenizer))
    raw.enable_truncation(min(LONGEST, manifest["max_length"]))
    texts = Path("export/parity_texts.txt").read_text(encoding="utf-8").splitlines()
    encoded = raw.encode_batch(texts)
    worst = 0.0
    for _, batch in batches([e.ids for e in encoded], [e.type_ids for e in encoded], manifest):
        wanted = known(**batch)
        seen = batch["attention_mask"].bool()
        for name, values in answers(opened, batch, manifest, list(wanted)).items():
            apart = (values - wanted[name]).abs()
            per_token = "length" in shapes(manifest)[name]
            worst = max(worst, float((apart[seen] if per_token else apart).max()))
    return worst


def against_file(opened: Any, expected: dict[str, Any], manifest: dict[str, Any]) -> float:
    """The largest difference from what PyTorch said to each row alone."""
    import torch

    worst = 0.0
    for begin, batch in batches(expected["ids"], expected["types"], manifest):
        for name, values in answers(opened, batch, manifest, list(expected["answers"])).items():
            for row, own in enumerate(values, begin):
                wanted = torch.tensor(expected["answers"][name][row])
                own = own[: len(wanted)] if "length" in shapes(manifest)[name] else own
                worst = max(worst, float((own - wanted).abs().max()))
    return worst


def answers(opened: Any, batch: Answers, manifest: dict[str, Any], wanted: list[str]) -> Answers:
    """Those of the graph's outputs that optimum-onnx gives and that are known. One at least must be there."""
    said = opened(**batch)
    found = {name: said[name] for name in shapes(manifest) if name in said and name in wanted}
    if not found:
        sys.exit(f"optimum-onnx gives {list(said)}, the graph {list(shapes(manifest))}, known are {wanted}")
    return found


def batches(ids: Rows, types: Rows, manifest: dict[str, Any]) -> Iterator[tuple[int, Answers]]:
    """Inputs of the graph (B, T), padded on the right, in batches of several sizes, with each one's first row."""
    import torch

    taken = [tensor["name"] for tensor in manifest["graphs"]["model"]["inputs"]]
    for size in SIZES:
        for begin in range(0, len(ids), size):
            length = max(map(len, ids[begin : begin + size]))
            ones = [[1] * len(row) for row in ids]
            padded = {
                name: torch.tensor([row + [pad] * (length - len(row)) for row in rows[begin : begin + size]])
                for name, rows, pad in (
                    ("input_ids", ids, manifest["pad_id"]),
                    ("attention_mask", ones, 0),
                    ("token_type_ids", types, 0),
                )
            }
            yield begin, {name: padded[name] for name in taken}


def shapes(manifest: dict[str, Any]) -> dict[str, list[int | str]]:
    """Declared shapes of the graph's outputs, by name."""
    return {tensor["name"]: tensor["shape"] for tensor in manifest["graphs"]["model"]["outputs"]}


if __name__ == "__main__":
    main()
