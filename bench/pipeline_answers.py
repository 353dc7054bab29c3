"""What the Transformers pipelines say, by any Python that has them: a job in JSON on standard input, answers on standard output.

Nothing of headway is imported: question answering wants a Transformers below 5, and so an environment of its own.
"""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata
from typing import Any

import numpy as np
import torch
import transformers

AGGREGATIONS = ("first", "average", "max")
WORDS = "takes a token not as long as its text for the rest of a word, or ends an entity before its combining marks"
CUTS = "cuts entities at the edges of windows, and believes a word where it has context on one side only"
SCALES = "compares answers of different windows by probabilities, which sum to 1 in every window"


def main() -> None:
    """Read {"task", "checkpoint", "inputs", "settings"}; write a list with a text's answers for each input.

    Answers are by setting of the call, and then by the mistakes of the pipeline that are mended: "" for none, the
    second's name for the first and the second.
    """
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with contextlib.redirect_stdout(sys.stderr):
        answers = ANSWERS[job["task"]](job["checkpoint"], job["inputs"], job["settings"])
    json.dump(answers, sys.stdout)


def labels(checkpoint: str, inputs: list[Any], asked: dict[str, Any]) -> list[Any]:
    """Each label's score; of a pair too, which is given as [text, text]."""
    pipe = transformers.pipeline("text-classification", model=checkpoint, device="cpu")
    texts = [i if isinstance(i, str) else {"text": i[0], "text_pair": i[1]} for i in inputs]
    said = (pipe(one, top_k=None, truncation="longest_first", **asked) for one in texts)
    return [{"top_k=None": {"": {row["label"]: row["score"] for row in rows}}} for rows in said]


def entities(checkpoint: str, inputs: list[str], asked: dict[str, Any]) -> list[Any]:
    """Label, begin, end and score of each entity. Long texts are read in windows."""
    plain: Any = transformers.pipeline("token-classification", model=checkpoint, device="cpu")
    plain.tokenizer.model_max_length = asked["max_length"]
    classes: dict[str, Any] = {WORDS: Mended, CUTS: Whole}
    mended = {mend: kind(model=plain.model, tokenizer=plain.tokenizer) for mend, kind in classes.items()}
    kinds = {"": plain, **mended}
    calls = {f"aggregation_strategy={how}": how for how in AGGREGATIONS}
    found = []
    for text in inputs:
        before, _, _ = plain._sanitize_parameters(stride=asked["stride"], aggregation_strategy="first")
        said = [plain.forward(window) for window in plain.preprocess(text, **before)]
        found.append({call: {mend: _entities(kind, said, how) for mend, kind in kinds.items()}
                      for call, how in calls.items()})  # fmt: skip
    return found


def _entities(kind: Any, said: list[Any], how: str) -> list[Any]:
    _, _, after = kind._sanitize_parameters(aggregation_strategy=how)
    rows = kind.postprocess(said, **after)
    return [[row["entity_group"], row["start"], row["end"], float(row["score"])] for row in rows]


class Mended(transformers.TokenClassificationPipeline):
    """Two mistakes less. The pipeline takes each token that is not as long as what it was made of for the rest of a
    word, though the tokenizer only removed an accent or a control character; and it ends entities before the
    combining marks of their last letter, which it so leaves behind."""

    def gather_pre_entities(self, sentence: str, input_ids: Any, *rest: Any, **more: Any) -> Any:
        found = super().gather_pre_entities(sentence, input_ids, *rest, **more)
        for entity in found:
            tokenizer: Any = self.tokenizer
            token = tokenizer.convert_ids_to_tokens(int(input_ids[entity["index"]]))
            entity["is_subword"] = token.startswith("##")
            while entity["end"] < len(sentence) and unicodedata.category(sentence[entity["end"]])[0] == "M":
                entity["end"] += 1
        return found


class Whole(Mended):
    """One mistake less: each word is taken from the window that sees most around it, and entities are made of all."""

    def postprocess(  # type: ignore[override]
        self, all_outputs: Any, aggregation_strategy: Any = None, ignore_labels: Any = ("O",)
    ) -> Any:
        best: dict[int, Any] = {}  # by begin: context in words, word
        for number, window in enumerate(all_outputs):
            chances = window["logits"][0].softmax(-1).numpy()
            places = (window[name][0].numpy() for name in ("offset_mapping", "special_tokens_mask"))
            sentence, ids = all_outputs[0]["sentence"], window["input_ids"][0]
            tokens = self.gather_pre_entities(sentence, ids, chances, *places, aggregation_strategy)
            while tokens and tokens[0]["is_subword"]:
                del tokens[0]  # its word begins in the window before
            words = self.aggregate_words(tokens, aggregation_strategy)
            for place, word in enumerate(words):
                before = place if number else np.inf
                after = len(words) - 1 - place if number < len(all_outputs) - 1 else np.inf
                if word["start"] not in best or min(before, after) > best[word["start"]][0]:
                    best[word["start"]] = (min(before, after), word)
        entities = self.group_entities([best[start][1] for start in sorted(best)])
        return [entity for entity in entities if entity["entity_group"] not in ignore_labels]


def spans(checkpoint: str, inputs: list[list[str]], asked: dict[str, Any]) -> list[Any]:
    """Begin, end and text of the best answer of each [question, context]."""
    open_pipeline: Any = transformers.pipeline  # the newest knows no such name
    pipe = open_pipeline("question-answering", model=checkpoint, device="cpu")
    asked = {"align_to_words": False, **asked}
    before, _, after = pipe._sanitize_parameters(**asked)
    found = []
    for question, context in inputs:
        example = pipe.create_sample(question, context)
        said = [pipe.forward(window) for window in pipe.preprocess(example, **before)]
        found.append({
            f"handle_impossible_answer={none}": {
                "": _span(pipe.postprocess(said, handle_impossible_answer=none, **after)),
                SCALES: _span(one_scale(pipe, said, none, after)),
            }
            for none in (False, True)
        })  # fmt: skip
    return found


def _span(answer: dict[str, Any]) -> list[Any]:
    return [answer["start"], answer["end"], answer["answer"]]


def one_scale(pipe: Any, said: list[Any], handle_impossible_answer: bool, after: dict[str, Any]) -> Any:
    """The best of the pipeline's answers in each window, by sums of logits, which Devlin et al. (2019) compare."""
    every, none = [], np.inf
    for window in said:
        allowed = np.array(window["p_mask"][0]) == 0
        weight = sum(
            np.logaddexp.reduce(window[side][0].double().numpy()[allowed]) for side in ("start", "end")
        )
        best = pipe.postprocess([window], **after)
        every.append(best | {"score": np.log(best["score"]) + weight})
        none = min(none, float(window["start"][0, 0] + window["end"][0, 0]))
    if handle_impossible_answer:
        every.append({"score": none, "start": 0, "end": 0, "answer": ""})
    return max(every, key=lambda answer: answer["score"])


ANSWERS = {"text-classification": labels, "token-classification": entities, "question-answering": spans}


if __name__ == "__main__":
    main()
