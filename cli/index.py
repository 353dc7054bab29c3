"""headway index: build, change, search and cluster a vector index of passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from headway.cli.lines import Place, ready_lines
from headway.cli.screen import bar, say
from headway.core import data, files
from headway.core.errors import UsageError
from headway.runtime.retrieval import cluster as clusters_of
from headway.runtime.retrieval.index import Index
from headway.runtime.retrieval.search import (
    TEMPLATE,
    WINDOW,
    BundleEmbedder,
    Found,
    Reranker,
    Search,
    opened_reader,
)

index = App(name="index", help_format="plaintext", result_action="return_value")


@index.command
def build(
    corpus: str,
    /,
    *,
    embedder: str,
    output: Path,
    precision: str = "auto",
    threads: int | None = None,
    columns: str | None = None,
    split: str | None = None,
    overwrite: bool = False,
) -> None:
    """Embed a corpus and write an index of it. After an interruption, the same command goes on where it was.

    Parameters
    ----------
    corpus
        .jsonl, .csv or .parquet file of {"id", "text"}, or a folder of the datasets library
    embedder
        bundle of sentence-embedding, or OWNER/NAME@COMMIT on the hub
    output
        folder for the index, which appears whole or not at all
    precision
        variant of the bundle, as fp32 or int8; auto: the fastest here
    threads
        processor threads; none: all that affinity and cgroup leave
    columns
        names of fields in the file, as text=body
    split
        which split of a folder that has several, as train
    overwrite
        replace what is at the output, or drop another build that was interrupted there
    """
    files.refuse_taken(output, overwrite)
    opened = BundleEmbedder(embedder, precision, threads)
    mapping = data.parse_columns(columns)
    made = Index.build(
        corpus, opened, output, columns=mapping, split=split, overwrite=overwrite, progress=bar
    )
    _say_cut(made.count_truncated())
    say(f"index: {output}, {len(made)} passages of {made.dimensions} dimensions")


@index.command
def add(
    folder: Path,
    corpus: str,
    /,
    *,
    embedder: str | None = None,
    threads: int | None = None,
    columns: str | None = None,
    split: str | None = None,
) -> None:
    """Add the passages of a corpus, all or none.

    Parameters
    ----------
    folder
        index that `headway index build` wrote
    corpus
        .jsonl, .csv or .parquet file of {"id", "text"}, with ids that are new
    embedder
        the bundle that the index was built with, where it is no longer at its place
    threads
        processor threads; none: all that affinity and cgroup leave
    columns
        names of fields in the file, as text=body
    split
        which split of a folder that has several, as train
    """
    opened = Index.open(folder)
    own = _embedder(opened, embedder, threads)
    count = opened.add(corpus, own, columns=data.parse_columns(columns), split=split, progress=bar)
    _say_cut(own.truncated)
    say(f"index: {folder}, {count} passages more, {len(opened)} in all")


@index.command
def delete(
    folder: Path, /, *, ids: Annotated[list[str], Parameter(consume_multiple=True, negative="")]
) -> None:
    """Delete passages, all or none.

    Parameters
    ----------
    folder
        index that `headway index build` wrote
    ids
        the passages
    """
    opened = Index.open(folder)
    count = opened.delete(ids, progress=bar)
    say(f"index: {folder}, {count} passages fewer, {len(opened)} in all")


@index.command
def search(
    folder: Path,
    /,
    *,
    query: str | None = None,
    queries: Place | None = None,
    output: Place = "-",
    top: int = 10,
    exact: bool = False,
    embedder: str | None = None,
    reranker: str | None = None,
    reader: str | None = None,
    template: str = TEMPLATE,
    threads: int | None = None,
    columns: str | None = None,
    split: str | None = None,
) -> None:
    """Find passages for queries, one JSON object a query: {"query", "truncated", "hits": [{"id", "text", "score", "truncated"}]}.

    Parameters
    ----------
    folder
        index that `headway index build` wrote
    query
        one query
    queries
        .jsonl, .csv or .parquet file of {"text"}; - for JSON Lines on standard input
    output
        file for the results, which appears whole or not at all; - for standard output
    top
        passages a query
    exact
        compare with every passage, instead of following the graph
    embedder
        the bundle that the index was built with, where it is no longer at its place
    reranker
        bundle of text-ranking, which orders the passages that were found
    reader
        bundle of question-answering, which finds the answer in the passages: "answer", "start", "end", "score", "id";
        or of text2text-generation, which writes one from as many of the best as it can read
    template
        what a bundle that writes is given, as it was trained
    threads
        processor threads; none: all that affinity and cgroup leave
    columns
        names of fields in the file of queries, as text=question
    split
        which split of a folder of queries that has several, as test
    """
    if (query is None) == (queries is None):
        raise UsageError("--query", "give either --query or --queries")
    files.refuse_unwritable_file(output)
    alone = data.Reading(iter([data.Record({"text": query}, "--query", 1)]), lambda: True)
    mapping = data.parse_columns(columns)
    records = alone if queries is None else data.read_split(queries, mapping, split)
    opened = Index.open(folder)
    engine = Search(
        opened,
        _embedder(opened, embedder, threads),
        Reranker(reranker, threads=threads) if reranker else None,
        opened_reader(reader, threads=threads, template=template) if reader else None,
    )
    counts: Counter[str] = Counter()
    with files.whole_file(output) as stream:
        shown: Iterator[data.Record] = bar(records, "searching")
        while window := ready_lines(shown, WINDOW, records.ready):
            found = engine([r.text("text") for r in window], top, exact=exact)
            stream.writelines(_line(r, f) for r, f in zip(window, found, strict=True))
            stream.flush()
            counts.update(_truncated(found))
    for what, count in counts.items():
        say(f"{count} {what}")


@index.command
def cluster(
    folder: Path,
    /,
    *,
    output: Place,
    method: clusters_of.Method = "kmeans",
    clusters: int | None = None,
    least: int = 5,
    plot: Path | None = None,
) -> None:
    """Group an index's passages, one JSON object each: {"id", "cluster"}.

    Parameters
    ----------
    folder
        index that `headway index build` wrote
    output
        file for the results, which appears whole or not at all; - for standard output
    method
        kmeans, or hdbscan: clusters of any form, and -1 for passages in none
    clusters
        how many, with kmeans; none: the root of half the passages
    least
        passages in a cluster, with hdbscan
    plot
        .html or .png file for a picture in two principal components
    """
    files.refuse_unwritable_file(output)
    if plot is not None:
        clusters_of.check_plot(plot)
        files.refuse_unwritable_file(plot)
    opened = Index.open(folder)
    labels = clusters_of.cluster(opened.vectors(), method, clusters, least)
    with files.whole_file(output) as stream:
        for passage, label in zip(opened.passages(), labels.tolist(), strict=True):
            stream.write(msgspec.json.encode({"id": passage.id, "cluster": label}).decode() + "\n")
    if plot is not None:
        clusters_of.plot(plot, opened, labels)
    say(f"{len(set(labels[labels >= 0].tolist()))} clusters, {int((labels < 0).sum())} passages in none")


def _embedder(opened: Index, given: str | None, threads: int | None) -> BundleEmbedder:
    """The bundle that made the index's vectors, in the same precision."""
    origin = opened.origin
    if given is None and Path(origin.bundle).is_absolute() and not Path(origin.bundle).is_dir():
        raise UsageError(
            "--embedder", f"say where the bundle is that made the index's vectors, once {origin.bundle}"
        )
    return BundleEmbedder(given or origin.bundle, origin.precision, threads)


def _line(record: data.Record, found: Found) -> str:
    own = {"query_id": record.fields["id"]} if "id" in record.fields else {}
    line: dict[str, Any] = own | {
        "query": found.query,
        "truncated": found.truncated,
        "hits": msgspec.to_builtins(found.hits),
    }
    if found.answer is not None:
        answer = msgspec.to_builtins(found.answer)
        line |= {"answer_truncated" if name == "truncated" else name: v for name, v in answer.items()}
    return msgspec.json.encode(line).decode() + "\n"


def _truncated(found: Sequence[Found]) -> Iterator[str]:
    """What was cut, once for each query, passage and answer."""
    for own in found:
        if own.truncated:
            yield 'queries were longer than the embedder and were cut ("truncated": true)'
        for hit in own.hits:
            if hit.truncated:
                yield 'passages in the results were cut for the embedder or the reranker ("truncated": true)'
        if own.answer is not None and own.answer.truncated:
            yield 'answers were written from a part of the passages ("answer_truncated": true)'


def _say_cut(count: int) -> None:
    if count:
        say(f"{count} passages were longer than the model and were cut")
