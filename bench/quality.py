"""What training comes to on real data, beside plain scripts: `python -m headway.bench.quality --help`.

Each case is trained by headway and by the plain script of its task (`headway.bench.plain`): the same texts, the
same initial model, the same number of steps, the same peak learning rate and precision. Figures are of the test set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from headway.bench import baselines, few_shot, plain
from headway.bench.plain.base import Setting
from headway.core import data, hardware, tasks
from headway.core.tasks import text_ranking
from headway.core.threads import budget
from headway.train import checkpoint, fit
from headway.train.options import TrainOptions

Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One data set and how it is trained."""

    name: str
    task: str
    shown: tuple[str, ...]
    """figures of the table; the first is the one that is compared"""
    train: int
    """examples, the first of the file; of a plain text, characters"""
    test: int = 1000
    epochs: int = 2
    rate: float = 2e-4
    length: int = 128
    batch: int = 32
    data: str = ""
    """folder, where it is not the name"""
    dev: int = 200
    """held-out examples that choose the epoch and fit temperature and thresholds"""
    seeds: int = 1
    """runs whose figures are averaged, where one run's luck is more than a point"""
    scratch: bool = False
    """a small new model, the same for both"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """more TrainOptions"""
    plain: Mapping[str, Any] = field(default_factory=dict)
    """more settings of the plain script"""

    @property
    def folder(self) -> str:
        return self.data or self.name


FAIRYTALE = "source=question: {question} context: {context},target=answer,references=answers"
TEXTS = ("rougeL", "bleu", "chrf")
CASES = (
    Case("banking77", "text-classification", ("accuracy", "macro_f1"), 5000, 3076, 3, 5e-4, 64),
    Case("rt_polarity", "text-classification", ("accuracy", "macro_f1"), 1200, 600),
    Case("scicite", "text-classification", ("accuracy", "macro_f1"), 600, 600),
    Case("goemotions", "text-classification", ("micro_f1", "macro_f1"), 7000, 1000, rate=5e-4, length=64, dev=500),
    Case("query_wellformedness", "text-classification", ("pearson", "spearman"), 1500, length=64,
         options={"score_range": "0,1"}),
    Case("stsb pairs", "text-classification", ("spearman", "pearson"), 800, 500, data="stsb",
         options={"score_range": "0,5"}),
    Case("csabstruct", "sequential-sentence-classification", ("macro_f1", "accuracy"), 240, 150, 3, length=384,
         batch=4, dev=50, options={"pooling": "mean"}),
    Case("legal_roles", "sequential-sentence-classification", ("macro_f1", "accuracy"), 6, 5, length=256,
         batch=4, dev=2, seeds=3, options={"pooling": "mean"}),
    Case("wnut17", "token-classification", ("entity_f1", "token_accuracy"), 1400, 1287, rate=3e-4),
    Case("bc5cdr", "token-classification", ("entity_f1", "token_accuracy"), 800, 500, rate=3e-4),
    Case("acl_rd_tec2", "token-classification", ("entity_f1", "token_accuracy"), 700, 205, 2, 3e-4, seeds=3),
    Case("ud_ewt", "token-classification", ("token_accuracy",), 1000, 500, rate=3e-4),
    Case("squad2_16art", "question-answering",
         ("f1", "exact_match", "f1_answerable", "exact_match_answerable", "no_answer_accuracy"),
         256, 120, length=256, batch=16, dev=200),
    Case("squadshifts_new_wiki", "question-answering", ("f1", "exact_match"), 256, 120, length=256,
         batch=16, dev=40),
    Case("stsb", "sentence-embedding", ("spearman", "pearson"), 2000, 1377, 1, 2e-5),
    Case("snli_triplets", "sentence-embedding", ("triplet_accuracy",), 1200, 1000, 1, 2e-5,
         plain={"loss": "mnr"}),
    Case("squad_retrieval", "sentence-embedding", ("ndcg_at_10", "recall_at_10", "mrr_at_10"), 500, 300, 1,
         2e-5, plain={"loss": "mnr"}, dev=40),
    Case("squad_retrieval, reranked", "text-ranking", ("ndcg_at_10", "mrr_at_10"), 400, 50, 1, 2e-4, batch=4,
         length=160, data="squad_retrieval"),
    Case("aeslc", "text2text-generation", TEXTS, 240, 60, 1, 3e-4, batch=16, dev=20,
         options={"max_target_length": 16}),
    Case("fairytaleqa", "text2text-generation", TEXTS, 128, 40, 1, 3e-4, length=256, batch=16, dev=20,
         options={"max_target_length": 16, "columns": FAIRYTALE}),
    Case("wiki_split", "text2text-generation", TEXTS, 800, 60, 1, 2e-3, batch=16, scratch=True, dev=40),
    Case("asset", "text2text-generation", TEXTS, 800, 60, 1, 2e-3, batch=16, scratch=True, dev=40),
    Case("jfleg", "text2text-generation", TEXTS, 653, 100, 2, 2e-3, batch=16, scratch=True, dev=40),
    Case("tinyshakespeare", "text-generation", ("perplexity", "word_perplexity"), 500_000, 60_000, 6, 2e-3,
         batch=8, dev=30_000, scratch=True),
    Case("wikitext2_excerpt", "text-generation", ("perplexity", "word_perplexity"), 500_000, 60_000, 6, 2e-3,
         batch=8, dev=30_000, scratch=True),
)  # fmt: skip
"""subsampled so that all of them together, both ways, take about two hours on two cores"""
SEED = 13
DOCUMENTS = 800
"""of the retrieval corpus: those that are relevant to the chosen queries, and the first others"""


@dataclass(frozen=True)
class Place:
    """Where a case is worked out."""

    data: Path
    model: Path
    work: Path

    def file(self, case: Case, split: str) -> Path:
        """The first examples of a split, in a file of their own."""
        source = self.data / case.folder
        if case.folder == "squad_retrieval":
            return source
        most = {"train": case.train, "test": case.test, "dev": case.dev}[split]
        if case.task == "text-generation":
            target = self.work / f"{case.name}-{split}.txt"
            target.write_text((source / f"{split}.txt").read_text("utf-8")[:most], encoding="utf-8")
            return target
        target = self.work / f"{case.name}-{split}.jsonl"
        with (source / f"{split}.jsonl").open(encoding="utf-8") as lines:
            target.write_text("".join(itertools.islice(lines, most)), encoding="utf-8")
        return target

    def options(
        self, case: Case, model: str, train: Path, dev: Path | None, output: Path, seed: int
    ) -> TrainOptions:
        return TrainOptions(
            model=model,
            train=train,
            eval=dev,
            output=output,
            epochs=case.epochs,
            patience=case.epochs,
            batch_size=case.batch,
            learning_rate=case.rate,
            max_length=case.length,
            seed=seed,
            overwrite=True,
            **case.options,
        )


def main() -> None:
    """Work out the cases that have no result in the work folder yet, then write the table of all."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.quality", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, required=True, help="folder for results, one file a case")
    parser.add_argument("--output", type=Path, required=True, help="file for the table, in Markdown")
    parser.add_argument("--only", action="append", help="a case; may be given several times")
    given = parser.parse_args()
    torch.set_num_threads(budget())
    given.work.mkdir(parents=True, exist_ok=True)
    place = Place(given.data, given.model, given.work)
    for case in CASES:
        result = given.work / f"{case.name}.json"
        if result.exists() or (given.only and case.name not in given.only):
            continue
        print(case.name, flush=True)
        figures = work_out(case, place)
        print(json.dumps(figures), flush=True)
        result.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    given.output.write_text(table(given.work) + few_shot.section_of(given.output), encoding="utf-8")


def work_out(case: Case, place: Place) -> dict[str, Any]:
    """Train both ways. Returns the figures of each, seconds of training, and what else is known of the data."""
    train, dev, test = (place.file(case, split) for split in ("train", "dev", "test"))
    model = _initial(case, place, train) if case.scratch else str(place.model)
    output = place.work / f"{case.name}-checkpoint"
    run = RUNS.get(case.name, _run)
    ours: list[Figures] = []
    theirs: list[Figures] = []
    beside: Figures = {}
    seconds = 0.0
    for seed in range(SEED, SEED + case.seeds):
        figures, took, beside = run(case, place, model, (train, dev, test), output, seed)
        seconds += took / case.seeds
        ours.append(figures)
        theirs.append(_plain(case, place, model, (train, test), seed))
    return {
        "headway": _mean(ours),
        "plain": _mean(theirs),
        "each seed": {"headway": ours, "plain": theirs},
        "beside": beside | _beside(case, place, model, (train, test)),
        "training seconds": seconds,
    }


def _mean(runs: Sequence[Figures]) -> Figures:
    return {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}


Run = tuple[Figures, float, Figures]
Files = tuple[Path, Path, Path]


def _run(case: Case, place: Place, model: str, files: Files, output: Path, seed: int) -> Run:
    """Our figures on the test set, seconds of training with its evaluations, and figures before training."""
    train, dev, test = files
    begin = time.perf_counter()
    options = place.options(case, model, train, dev, output, seed)
    fit.train(case.task, options)
    seconds = time.perf_counter() - begin
    opened = checkpoint.open_checkpoint(output)
    task = tasks.load(case.task)
    examples = tasks.read_labelled(task, test, data.parse_columns(options.columns), opened.spec, split="test")
    return task.metrics(examples, checkpoint.predict(opened, examples)), seconds, {}


def _retrieval(case: Case, place: Place, model: str, files: Files, output: Path, seed: int) -> Run:
    """As `_run`, on the first queries of the collection's splits, all documents."""
    parts = {
        split: _queries(place, split, n)
        for split, n in (("train", case.train), ("dev", case.dev), ("test", case.test))
    }
    begin = time.perf_counter()
    fit.train(case.task, place.options(case, model, parts["train"], parts["dev"], output, seed))
    seconds = time.perf_counter() - begin
    opened = checkpoint.open_checkpoint(output)
    task = tasks.load(case.task)
    examples = tasks.read_labelled(task, parts["test"], spec=opened.spec, split="test")
    return task.metrics(examples, checkpoint.predict(opened, examples)), seconds, {}


def _rerank(case: Case, place: Place, model: str, files: Files, output: Path, seed: int) -> Run:
    """A ranker trained on BM25's negatives puts the embedder's 20 best documents in a new order."""
    train = _queries(place, "train", case.train)
    begin = time.perf_counter()
    fit.train(case.task, place.options(case, model, train, None, output, seed))
    seconds = time.perf_counter() - begin
    opened = checkpoint.open_checkpoint(output)
    examples = _candidates(case, place)
    before = [text_ranking.Ranked([-float(i) for i in range(len(e.passages))]) for e in examples]
    figures = text_ranking.metrics(examples, checkpoint.predict(opened, examples))
    without = {f"{k} without": v for k, v in text_ranking.metrics(examples, before).items()}
    return figures, seconds, without


def _queries(place: Place, split: str, count: int) -> Path:
    """The collection with the first `count` queries of a split and `DOCUMENTS` documents."""
    source, target = place.data / "squad_retrieval", place.work / f"retrieval-{split}-{count}"
    target.mkdir(exist_ok=True)
    lines = {
        n: (source / f"{n}.jsonl").read_text("utf-8").splitlines() for n in ("corpus", "queries", "qrels")
    }
    chosen = [line for line in lines["queries"] if json.loads(line)["split"] == split][:count]
    ids = {json.loads(line)["id"] for line in chosen}
    qrels = [line for line in lines["qrels"] if json.loads(line)["query_id"] in ids]
    relevant = {json.loads(line)["doc_id"] for line in qrels}
    first = sorted(lines["corpus"], key=lambda line: json.loads(line)["id"] not in relevant)[:DOCUMENTS]
    for name, kept in (("corpus", first), ("queries", chosen), ("qrels", qrels)):
        (target / f"{name}.jsonl").write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return target


def _candidates(case: Case, place: Place) -> list[text_ranking.Example]:
    """For each test query the 20 documents nearest by the embedder that the case before this one trained."""
    opened = checkpoint.open_checkpoint(place.work / "squad_retrieval-checkpoint")
    found: list[Any] = tasks.read_labelled(
        tasks.load("sentence-embedding"), _queries(place, "test", case.test), split="test"
    )
    vectors = torch.tensor([r.embedding for r in checkpoint.predict(opened, found)])  # type: ignore[attr-defined]
    documents = [i for i, e in enumerate(found) if e.form == "document"]
    examples = []
    for i, query in enumerate(found):
        if query.form != "query":
            continue
        best = (vectors[documents] @ vectors[i]).topk(20).indices.tolist()
        near = [found[documents[d]] for d in best]
        gold = tuple(query.relevant.get(d.id, 0.0) for d in near)
        passages = tuple(d.texts[0] for d in near)
        ideal = tuple(query.relevant.values())
        examples.append(text_ranking.Example(query.texts[0], passages, gold, ideal, query.id, query.record))
    return examples


RUNS: dict[str, Callable[[Case, Place, str, Files, Path, int], Run]] = {
    "squad_retrieval": _retrieval,
    "squad_retrieval, reranked": _rerank,
}


def _initial(case: Case, place: Place, train: Path) -> str:
    """A small new model and its tokenizer, as `--from-scratch small` makes them."""
    from headway.train.tasks import base

    specifics: Any = base.load(case.task)
    folder = place.work / f"{case.name}-initial"
    options = TrainOptions(train=train, output=folder, from_scratch="small", max_length=case.length)
    examples = tasks.read_labelled(tasks.load(case.task), train)
    tokenizer = specifics.new_tokenizer(examples, options)
    torch.manual_seed(options.seed)
    specifics.new_model(tokenizer, options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _plain(case: Case, place: Place, model: str, files: tuple[Path, Path], seed: int) -> Figures:
    options: dict[str, Any] = dict(case.plain)
    train, test = ([], []) if case.task == "text-generation" else map(_records, _renamed(case, place, files))
    if case.task == "text-generation":
        options |= {
            "train_text": files[0].read_text("utf-8"),
            "test_text": files[1].read_text("utf-8"),
            "block": case.length,
        }
    if case.task == "text2text-generation":
        options["max_target_length"] = case.options.get("max_target_length", 64)
    if case.name == "squad_retrieval":
        folder = _queries(place, "test", case.test)
        options |= {n: _records(folder / f"{n}.jsonl") for n in ("corpus", "queries", "qrels")}
    if case.task == "text-ranking":
        options["candidates"] = [
            {
                "query": e.query,
                "passages": list(e.passages),
                "relevant": [int(g) for g in e.gold or ()],
                "n_relevant": len(e.ideal),
            }
            for e in _candidates(case, place)
        ]
    setting = Setting(
        model=model,
        train=train,
        test=test,
        epochs=case.epochs,
        batch_size=_plain_batch(case),
        learning_rate=case.rate,
        warmup=0.1,
        weight_decay=0.01,
        max_length=case.length,
        seed=seed,
        bf16=hardware.has_fast_bf16(hardware.cpu_flags()),
        options=options,
    )
    figures: Figures = plain.base.load(case.task).run(setting)
    return figures


def _plain_batch(case: Case) -> int:
    """What makes the same number of steps where a row of ours is more than one of the plain script's."""
    if case.task == "text-ranking":
        return case.batch * (1 + text_ranking.NEGATIVES)  # pairs, not queries
    if case.task == "sequential-sentence-classification":
        return 32  # sentences, not windows of them
    return case.batch


def _records(path: Path | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return path if isinstance(path, list) else [dict(r.fields) for r in data.read(path)]


def _renamed(case: Case, place: Place, files: tuple[Path, Path]) -> Sequence[Path | list[dict[str, Any]]]:
    """Training and test records in the form that the plain script reads."""
    if case.name.startswith("squad_retrieval"):
        folder = _queries(place, "train", case.train)
        examples: list[Any] = tasks.read_labelled(tasks.load(case.task), folder)
        if case.task == "sentence-embedding":
            return [[{"anchor": e.texts[0], "positive": e.texts[1]} for e in examples], []]
        pairs = [
            {"query": e.query, "passage": p, "label": int(g)}
            for e in examples
            for p, g in zip(e.passages, e.gold, strict=True)
        ]
        return [pairs, []]
    columns = data.parse_columns(case.options.get("columns"))
    return [[dict(r.fields) for r in data.read(file, columns)] for file in files] if columns else files


def _beside(case: Case, place: Place, model: str, files: tuple[Path, Path]) -> Figures:
    """What the simplest thing comes to: copying the source, or counting trigrams of the same tokens."""
    if case.task == "text2text-generation":
        (test,) = _renamed(case, place, files)[1:]
        return {f"{k}, copied source": v for k, v in baselines.copying(_records(test)).items()}
    if case.task == "text-generation":
        tokenizer = checkpoint.open_tokenizer(model).backend_tokenizer
        ids = [tokenizer.encode(f.read_text("utf-8"), add_special_tokens=False).ids for f in files]
        return {"perplexity, trigrams": baselines.trigram(ids[0], ids[1], tokenizer.get_vocab_size())}
    return {}


INTRODUCTION = """# Quality of training, beside plain scripts

Written by `python -m headway.bench.quality --data DATA --model DIR --work FOLDER --output docs/quality.md`, where DIR
is all-MiniLM-L6-v2. Each row is one data set: `headway` trains it through the one loop, `plain script` is what one
writes with transformers' Trainer or sentence-transformers (`bench/plain/`), with the same texts, initial model, number
of steps, peak learning rate, schedule and precision. Training sets are the first examples of each file, so few that
each run takes minutes on two cores; test sets are the first, too (see `CASES` in `bench/quality.py`). headway
chooses its epoch and fits temperature and thresholds on a dev set; the plain script takes its last epoch.

- Shares in percent; perplexities as they are, lower is better. Examples of plain texts are characters.
- "without" reranking is the embedder's own order of its 20 nearest documents; retrieval is over 800 paragraphs.
- `sequential-sentence-classification`: the plain script classifies each sentence alone.
- Generation: models made from so little data are weak, and copying the source scores higher where source and target are
  nearly the same text; what counts is that both loops come to the same. `aeslc` and `fairytaleqa` start from MiniLM on
  both sides, the others from a small new model. Perplexity "trigrams" is of the same tokens (modified Kneser-Ney).
- The least trained rows (`goemotions`, questions and ranking) have learned almost nothing after so few steps, on either side.
- Where one run's luck is more than a point, figures are means over seeds: "3 seeds".
- "training" is wall time of headway's training with its evaluations, on two cores that had other work at times.
"""


def table(work: Path) -> str:
    """All results as one page in Markdown."""
    missing = [case.name for case in CASES if not (work / f"{case.name}.json").exists()]
    lines = [
        *INTRODUCTION.splitlines(),
        *([f"- Not measured yet: {', '.join(missing)}."] if missing else []),
        "",
        "| data | task | examples × epochs | figure | headway | plain script | beside | training, s |",
        "|---|---|--:|---|--:|--:|---|--:|",
    ]
    for case in CASES:
        path = work / f"{case.name}.json"
        if not path.exists():
            continue
        read = json.loads(path.read_text("utf-8"))
        before = {
            k.removeprefix("before_") + " before": v
            for k, v in read["plain"].items()
            if k.startswith("before_")
        }
        known = {**read["beside"], **before}
        for place, name in enumerate(case.shown):
            beside = ", ".join(
                f"{_shown(name, v)} {k.removeprefix(name).strip(', ')}"
                for k, v in known.items()
                if k.startswith(name) and k[len(name) : len(name) + 1] in (",", " ")
            )
            head = (
                case.name,
                case.task,
                f"{case.train:,} × {case.epochs}" + (f", {case.seeds} seeds" if case.seeds > 1 else ""),
            )
            first = head if place == 0 else ("", "", "")
            seconds = f"{read['training seconds']:.0f}" if place == 0 else ""
            theirs = _shown(name, read["plain"].get(name))
            cells = [*first, name, _shown(name, read["headway"][name]), theirs, beside, seconds]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if name in tasks.FIGURES_FALLING else f"{100 * value:.2f}"


if __name__ == "__main__":
    main()
