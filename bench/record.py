"""What a measurement leaves behind: every sample, and all that is needed to understand it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from headway.bench.estimates import Estimate, mean, percentile
from headway.bench.peers.base import Setting
from headway.core.errors import DataError

FORMAT = "headway-bench-2"


class Load(msgspec.Struct, frozen=True):
    """Requests that arrived by themselves, at a rate, whether the ones before had been answered or not."""

    rate: float
    """requests a second"""
    latencies_ms: list[float]
    """from when each request should have been sent to its answer"""
    unanswered: int
    """requests that were not answered when the time was over; their latencies are those of that moment"""
    seconds: float
    batch: float | None = None
    """requests that were answered together, on average, where that was seen"""


class Round(msgspec.Struct, frozen=True):
    """One fresh process."""

    cold_start_s: float
    """from its start to its first answer"""
    latencies_ms: list[float]
    """of one text at a time, the next sent when the last was answered"""
    throughput: float
    """texts a second, all given at once"""
    setting: Setting
    """the way of running all at once that was fastest"""
    memory_mb: float
    """largest resident size"""
    steady: bool
    """whether the warm-up ended because times were stable, and not because it had lasted long enough"""
    stages_ms: dict[str, float] = {}
    """mean of each stage of one text at a time, where the subject can tell"""
    waste: float | None = None
    """share of the tokens that went through the engine, all texts at once, that were padding"""
    joules: float | None = None
    """for a text, all at once, where the machine tells its energy"""
    load: list[Load] = []


class Row(msgspec.Struct, frozen=True):
    """One subject."""

    subject: str
    rounds: list[Round]
    agreement: float
    """share of answers equal to the first subject's; of vectors the mean cosine with them"""
    least_cosine: float | None
    """of vectors: of the text whose answers differ most"""
    disk_mb: float
    """of what it opens"""
    quality: dict[str, float]
    """the task's metrics, where the texts have gold answers"""
    versions: dict[str, str]
    """libraries of its interpreter that are not the record's"""

    def latency(self, wanted: float) -> Estimate | None:
        """A percentile of one text at a time, in milliseconds; None where there are too few samples."""
        return percentile([r.latencies_ms for r in self.rounds], wanted)

    @property
    def throughput(self) -> Estimate:
        """Texts a second."""
        return mean([r.throughput for r in self.rounds])

    @property
    def cold_start_s(self) -> Estimate:
        return mean([r.cold_start_s for r in self.rounds])

    @property
    def memory_mb(self) -> Estimate:
        return mean([r.memory_mb for r in self.rounds])

    @property
    def fastest(self) -> Round:
        return max(self.rounds, key=lambda r: r.throughput)

    def loads(self) -> list[list[Load]]:
        """By rate, those of all rounds."""
        return [list(rounds) for rounds in zip(*(r.load for r in self.rounds), strict=True)]


class Work(msgspec.Struct, frozen=True):
    """What the texts ask of any engine: multiplications and additions of the model's products, padding left out."""

    tokens: float
    """of a text, on average, special ones included"""
    operations: float
    """for a text, on average"""
    weights: float
    """bytes of the fp32 weights that every text's products read; of a model that writes, once a token"""
    written: float = 0.0
    """tokens of an answer of a model that writes, on average"""


class Peaks(msgspec.Struct, frozen=True):
    """What this machine reached with the record's threads."""

    operations: dict[str, float]
    """a second, in a large matrix product, by type: fp32, int8"""
    memory: float
    """bytes read a second"""


class Record(msgspec.Struct, frozen=True):
    """A whole comparison."""

    task: str
    rows: list[Row]
    texts: int
    one_by_one: int
    threads: int
    max_length: int
    """tokens that texts were cut to"""
    texts_sha256: str
    machine: dict[str, Any]
    versions: dict[str, str]
    bundle_seal: str
    work: Work | None = None
    peaks: Peaks | None = None
    format: str = FORMAT


def read(path: Path) -> Record:
    """A record that `headway bench` wrote. Raises DataError."""
    try:
        content = path.read_bytes()
        return msgspec.json.decode(content, type=Record)
    except OSError as error:
        raise DataError(error.strerror or str(error), file=str(path)) from error
    except msgspec.DecodeError as error:
        raise DataError(f"is no record of headway bench: {error}", file=str(path)) from error
