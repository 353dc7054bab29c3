"""Run by `make optimum-check`: optimum-onnx opens bundle/fp32 and gives the checkpoint's own logits."""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LIMIT = 1e-4
"""largest difference of a logit, absolute: fp32 on both sides"""


def main(bundle: str, checkpoint: str) -> None:
    texts = Path("export/parity_texts.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    reference = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    opened = ORTModelForSequenceClassification.from_pretrained(Path(bundle) / "fp32")
    worst = 0.0
    for size in (1, 7, len(texts)):
        for begin in range(0, len(texts), size):
            batch = texts[begin : begin + size]
            encoded = tokenizer(batch, padding=True, truncation=True, max_length=128, return_tensors="pt")
            with torch.inference_mode():
                difference = opened(**encoded).logits - reference(**encoded).logits
            worst = max(worst, float(difference.abs().max()))
    print(
        f"optimum-onnx {version('optimum-onnx')}, transformers {version('transformers')}: worst {worst:.2g}"
    )
    sys.exit(0 if worst <= LIMIT else 4)


if __name__ == "__main__":
    main(*sys.argv[1:])
