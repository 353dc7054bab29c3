"""Retrieval over a corpus: an index of passages, and the pipeline of embedder, reranker and reader that asks it."""

from headway.runtime.retrieval.index import Embedded, Embedder, Hit, Index
from headway.runtime.retrieval.search import Answer, BundleEmbedder, Found, Reader, Reranker, Search, Writer

__all__ = [
    "Answer",
    "BundleEmbedder",
    "Embedded",
    "Embedder",
    "Found",
    "Hit",
    "Index",
    "Reader",
    "Reranker",
    "Search",
    "Writer",
]
