"""One run of SetFit, by the Python of its own environment: MODEL TRAIN TEST ITERATIONS SEED THREADS. Prints a line of JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """SetFit's defaults but for the number of pairs. Reads "text" and "label" of JSON Lines."""
    import torch
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.metrics import accuracy_score, f1_score

    model_folder, train, test = sys.argv[1:4]
    iterations, seed, threads = map(int, sys.argv[4:7])
    torch.set_num_threads(threads)
    examples, held_out = _read(train), _read(test)
    begin, processor = time.perf_counter(), time.process_time()
    model = SetFitModel.from_pretrained(model_folder)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_iterations=iterations, seed=seed, report_to="none", save_strategy="no"
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Dataset.from_list(examples))
        trainer.train()
    seconds, processor_seconds = time.perf_counter() - begin, time.process_time() - processor
    gold = [row["label"] for row in held_out]
    answers = list(model.predict([row["text"] for row in held_out]))
    figures = {
        "accuracy": float(accuracy_score(gold, answers)),
        "macro_f1": float(f1_score(gold, answers, average="macro")),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
    }
    print(json.dumps(figures))


def _read(path: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return [{"text": row["text"], "label": row["label"]} for row in rows]


if __name__ == "__main__":
    main()
