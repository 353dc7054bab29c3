"""Groups of passages whose vectors are near each other, and a picture of them."""

from __future__ import annotations

import colorsys
import struct
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headway.core import files
from headway.core.errors import OutputError, UnavailableError, UsageError
from headway.runtime.retrieval import store
from headway.runtime.retrieval.index import Index
from headway.runtime.retrieval.store import Vectors

Method = Literal["kmeans", "hdbscan"]

SEED = 13
DENSE = 16
"""dimensions (principal components) in which densities are measured: in hundreds all distances are alike"""
SIDE = 900
"""pixels of a plot's sides"""
DOTS = 20000
"""passages in a plot, at most, evenly taken"""
WORDS = 120
"""characters of a passage that a plot shows under the pointer"""

Labels = NDArray[np.int64]


def cluster(
    vectors: Vectors, method: Method = "kmeans", clusters: int | None = None, least: int = 5
) -> Labels:
    """The number of each vector's cluster (N); with hdbscan, -1 for those in none.

    Args:
        vectors: (N, D) of length 1.
        clusters: how many, with kmeans; None: the root of half the vectors.
        least: passages in a cluster, with hdbscan.
    Raises:
        UsageError: a number that makes no sense, or too few vectors for it.
        UnavailableError: scikit-learn is not installed.
    """
    if method == "hdbscan" and clusters is not None:
        raise UsageError("--clusters", "hdbscan finds out how many there are")
    if least < 2:
        raise UsageError("--least", f"must be at least 2, not {least}")
    wanted = clusters if clusters is not None else max(1, round((len(vectors) / 2) ** 0.5))
    if not 1 <= wanted <= len(vectors):
        raise UsageError("--clusters", f"{wanted} clusters of {len(vectors)} passages cannot be")
    try:
        from sklearn.cluster import HDBSCAN, KMeans
    except ImportError as error:
        raise UnavailableError(
            "scikit-learn, which finds clusters,", "pip install 'headway[retrieval]'"
        ) from error
    if method == "kmeans":
        found = KMeans(wanted, n_init=1, random_state=SEED).fit_predict(vectors)
    elif len(vectors) < least:
        found = np.full(len(vectors), -1)
    else:
        dense = principal(vectors, DENSE)
        found = HDBSCAN(min_cluster_size=least, algorithm="kd_tree", copy=True).fit_predict(dense)
    return np.asarray(found, np.int64)


def principal(vectors: Vectors, count: int) -> NDArray[np.float64]:
    """(N, count): vectors along the directions of most variance; zeros where there are fewer of them."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), DOTS):  # not all vectors in 64 bits at once
        centred = vectors[start : start + DOTS] - mean
        covariance += centred.T @ centred
    directions = np.linalg.eigh(covariance)[1][:, ::-1][:, :count]  # (D, count)
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    directions = directions * np.where(signs == 0, 1, signs)
    flat = np.zeros((len(vectors), count))
    flat[:, : directions.shape[1]] = vectors @ directions - mean @ directions
    return flat


def check_plot(path: Path) -> None:
    """Raise UsageError for a file that is no .html and no .png."""
    if path.suffix not in (".html", ".png"):
        raise UsageError("--plot", f"wants a .html or .png file, not '{path}'")


def plot(path: Path, index: Index, labels: Labels) -> None:
    """Write a picture of the passages in two principal components, coloured by cluster: SVG in HTML, or PNG."""
    check_plot(path)
    files.make_parents(path)
    try:
        store.put(path.parent, path.name, [_picture(path.suffix, index, labels)])
    except OSError as error:
        raise OutputError.of(path, error) from error


def _picture(kind: str, index: Index, labels: Labels) -> bytes:
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(DOTS, len(labels))).round().astype(np.int64))
    flat = principal(index.vectors(), 2)[chosen]
    low, high = flat.min(axis=0), flat.max(axis=0)
    places = (flat - low) / np.maximum(high - low, 1e-12) * (SIDE - 20) + 10  # (N, 2), in pixels
    if kind == ".png":
        return _png(places, labels[chosen])
    shown = set(chosen.tolist())
    words = [f"{p.id}: {p.text[:WORDS]}" for i, p in enumerate(index.passages()) if i in shown]
    return _html(places, labels[chosen], words)


def _colour(label: int) -> tuple[int, int, int]:
    """Far from its neighbours': steps of the golden ratio around the colour circle. Grey for no cluster."""
    if label < 0:
        return 190, 190, 190
    red, green, blue = colorsys.hls_to_rgb(label * 0.618034 % 1, 0.35 + 0.1 * (label % 3), 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def _html(places: NDArray[np.float64], labels: Labels, words: Sequence[str]) -> bytes:
    dots = "\n".join(
        f'<circle cx="{x:.1f}" cy="{SIDE - y:.1f}" r="3" fill="rgb{_colour(int(label))}">'
        f"<title>cluster {label}, {escape(word)}</title></circle>"
        for (x, y), label, word in zip(places, labels, words, strict=True)
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Clusters</title>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}">\n{dots}\n</svg>\n</html>\n'
    ).encode()


def _png(places: NDArray[np.float64], labels: Labels) -> bytes:
    """Dots of 3 x 3 pixels on white (PNG, 8-bit RGB, ISO/IEC 15948)."""
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for (x, y), label in zip(places.round().astype(int), labels, strict=True):
        image[SIDE - y - 1 : SIDE - y + 2, x - 1 : x + 2] = _colour(int(label))
    lines = b"".join(b"\0" + row.tobytes() for row in image)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
