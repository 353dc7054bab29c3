"""Small labelled data for every task, made of the messages in examples/support."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.conftest import SUPPORT

Rows = list[dict[str, Any]]


def messages(name: str) -> Rows:
    return [json.loads(line) for line in (SUPPORT / f"{name}.jsonl").read_text("utf-8").splitlines()]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def single(name: str) -> Rows:
    return [{"text": m["text"], "label": m["label"]} for m in messages(name)]


def multi(name: str) -> Rows:
    return [
        {"text": m["text"], "labels": [m["label"][0]] + ["question"] * ("?" in m["text"])}
        for m in messages(name)
    ]


def regression(name: str) -> Rows:
    return [{"text": m["text"], "score": min(len(_words(m["text"])), 40) / 40} for m in messages(name)]


def pairs(name: str) -> Rows:
    found = messages(name)
    return [
        {"text1": a["text"], "text2": b["text"], "label": "same" if a["label"] == b["label"] else "other"}
        for i, (a, b) in enumerate(zip(found, found[1:] + found[:1], strict=True))
        if i % 2 or a["label"] == b["label"]
    ]


def documents(name: str) -> Rows:
    found = messages(name)
    parts = [found[i : i + 9] for i in range(0, len(found) - 9, 5)]
    return [{"sentences": [m["text"] for m in p], "labels": [m["label"] for m in p]} for p in parts]


def entities(name: str) -> Rows:
    rows = []
    for m in messages(name):
        tokens = _words(m["text"])
        tags = []
        for i, token in enumerate(tokens):
            follows = i > 0 and tags[-1][2:] == "NUM" and token == tokens[i - 1]
            kind = "NUM" if token.isdigit() else "CAP" if token[0].isupper() else ""
            tags.append("O" if not kind else f"I-{kind}" if follows else f"B-{kind}")
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def plain_tags(name: str) -> Rows:
    return [
        {"tokens": row["tokens"], "tags": ["word" if t[0].isalpha() else "other" for t in row["tokens"]]}
        for row in entities(name)
    ]


def questions(name: str) -> Rows:
    rows = []
    found = messages(name)
    for i, (a, b) in enumerate(pairwise(found)):
        context = f"{a['text']} {b['text']}"
        words = [m for m in re.finditer(r"\w+", context) if len(m[0]) > 3]
        word = words[i % len(words)]
        answers = {"text": [word[0]], "answer_start": [word.start()]}
        if i % 4 == 0:
            answers = {"text": [], "answer_start": []}
        rows.append(
            {"id": str(i), "question": f"word {i % len(words)}?", "context": context, "answers": answers}
        )
    return rows


def answerable(name: str) -> Rows:
    return [row for row in questions(name) if row["answers"]["text"]]


def rewrites(name: str) -> Rows:
    return [{"source": m["text"], "target": " ".join(m["text"].split()[:6])} for m in messages(name)]


def texts(name: str) -> Rows:
    return [{"text": m["text"]} for m in messages(name)]


def similar(name: str) -> Rows:
    return [
        {"text1": r["text1"], "text2": r["text2"], "score": 5.0 * (r["label"] == "same")} for r in pairs(name)
    ]


def zero_one(name: str) -> Rows:
    return [
        {"text1": r["text1"], "text2": r["text2"], "label": int(r["label"] == "same")} for r in pairs(name)
    ]


def triplets(name: str) -> Rows:
    found = messages(name)
    rows = []
    for i, m in enumerate(found):
        same = next((o for o in found[i + 1 :] if o["label"] == m["label"]), None)
        other = next((o for o in found[i + 1 :] if o["label"] != m["label"]), None)
        if same and other:
            rows.append({"anchor": m["text"], "positive": same["text"], "negative": other["text"]})
    return rows


def anchors(name: str) -> Rows:
    return [{"anchor": t["anchor"], "positive": t["positive"]} for t in triplets(name)]


def passages(name: str) -> Rows:
    return [
        {"query": q, "passage": p, "label": label}
        for t in triplets(name)
        for q, p, label in ((t["anchor"], t["positive"], 1), (t["anchor"], t["negative"], 0))
    ]


def lists(name: str) -> Rows:
    return [
        {"query": t["anchor"], "positive": t["positive"], "negatives": [t["negative"], o["negative"]]}
        for t, o in zip(triplets(name), triplets(name)[1:], strict=False)
    ]


def write(make: Callable[[str], Rows], name: str, folder: Path, count: int) -> Path:
    """The first rows in a JSON Lines file of their own."""
    path = folder / f"{make.__name__}-{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make(name)[:count]), encoding="utf-8")
    return path
