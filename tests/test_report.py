"""The HTML report: whole, self-contained, the same for the same record; `make report-check` looks at it in a browser."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from headway.bench.record import Load, Peaks, Record, Round, Row, Work
from headway.bench.report import plots, tables
from headway.bench.report.conclusions import conclusions
from headway.bench.report.html import page, require
from headway.bench.report.markdown import markdown
from headway.core.errors import UnavailableError

STAGES = {"tokenize": 0.1, "plan": 0.02, "run": 0.8, "decode": 0.08}
"""shares of one text's time"""


def made(
    subjects: list[str], *, rounds: int = 5, texts: int = 200, rates: tuple[float, ...] = (20, 40, 60),
    vectors: bool = False, quality: bool = True, whole: bool = True,
) -> Record:  # fmt: skip
    """A record with figures of a plausible size, the same at every call; headway's subjects tell their stages."""
    random = np.random.default_rng(7)

    def sample(middle: float, count: int) -> list[float]:
        return np.round(random.lognormal(np.log(middle), 0.4, count), 4).tolist()

    def row(number: int, subject: str) -> Row:
        middle = 5 * 1.25**number
        own = subject.startswith("headway")
        return Row(
            subject=subject,
            rounds=[
                Round(
                    cold_start_s=sample(0.5 + number / 4, 1)[0],
                    latencies_ms=sample(middle, texts),
                    throughput=4 * sample(1000 / middle, 1)[0],
                    setting={"engine": "onnxruntime"} if own else {"batch_size": 32, "by_length": True},
                    memory_mb=sample(300 + 40 * number, 1)[0],
                    steady=own,
                    stages_ms={name: share * middle for name, share in STAGES.items()} if own and whole else {},
                    waste=0.03 if own and whole else None,
                    joules=0.8 * middle if whole else None,
                    load=[Load(rate, sample(middle * rate / 10, texts), int(rate * number) // 200, 10.0, 1.5) for rate in rates],
                )
                for _ in range(rounds)
            ],
            agreement=1 - number / 1000,
            least_cosine=1 - number / 200 if vectors else None,
            disk_mb=440 / (1 + number % 4),
            quality={"macro_f1": 0.93 - number / 500, "accuracy": 0.95 - number / 400} if quality else {},
            versions={} if own else {"torch": "2.13.0", "transformers": "5.23.0"},
        )  # fmt: skip

    return Record(
        task="sentence-embedding" if vectors else "text-classification",
        rows=[row(number, subject) for number, subject in enumerate(subjects)],
        texts=texts,
        one_by_one=texts,
        threads=8,
        max_length=128,
        texts_sha256="0" * 64,
        machine={"processor": "A Processor @ 2.50GHz", "processors": 8, "clock_mhz": 2500.0, "governor": None},
        versions={"headway": "0.1.0", "onnxruntime": "1.31.0", "numpy": "2.4.0"},
        bundle_seal="0123456789abcdef",
        work=Work(tokens=21.5, operations=3e8, weights=3.4e8) if whole else None,
        peaks=Peaks({"fp32": 4e11, "int8": 1.5e12}, 4e10) if whole else None,
    )  # fmt: skip


OWN = [
    f"headway {precision}" for precision in ("fp32", "fp16", "bf16", "int8", "int8-static", "int4-weights")
]
LONG = "torch/fp32-compiled, inductor & 'max-autotune', <b> $1$ \"quoted\": of a name that takes two lines"
PEERS = ["torch fp32", "torch bf16", LONG, "sentence-transformers fp32", "openvino-direct int8",
         "tokenizers-onnxruntime fp32", "ctranslate2 int8_float32", "fastembed fp32"]  # fmt: skip
RECORDS: dict[str, Callable[[], Record]] = {
    "everything": lambda: made(OWN + PEERS),
    "usual": lambda: made([OWN[0], OWN[3], PEERS[0]]),
    "vectors": lambda: made(OWN[:2] + PEERS[3:6], rounds=2, rates=(20,), vectors=True, quality=False),
    "least": lambda: made(OWN[:1], rounds=1, texts=1, rates=(), quality=False, whole=False),
}


class Read(HTMLParser):
    """A page as a browser would have it, but that any element left open is an error."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        """of headings, sentences and captions"""
        self.rows: list[list[str]] = []
        """of tables"""
        self.drawings: list[list[str]] = []
        """texts of each"""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "svg":
            self.drawings.append([])
        elif tag == "text":
            self.drawings[-1].append("")
        elif tag in ("li", "h1", "h2", "figcaption"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "text" in self.open:
            self.drawings[-1][-1] += data
        elif {"td", "th"} & {*self.open}:
            self.rows[-1][-1] += data
        elif self.open and self.open[-1] in ("li", "h1", "h2", "figcaption"):
            self.texts[-1] += data


@pytest.fixture(scope="module", params=RECORDS)
def record(request: pytest.FixtureRequest) -> Record:
    return RECORDS[request.param]()


@pytest.fixture(scope="module")
def text(record: Record) -> str:
    return page(record)


@pytest.fixture(scope="module")
def read(text: str) -> Read:
    return Read(text)


def test_the_page_is_one_whole_document(text: str, read: Read) -> None:
    assert text.startswith("<!doctype html>\n<html lang=")
    assert [tag for tag, _ in read.tags[:3]] == ["html", "head", "meta"]
    assert sum(tag == "h1" for tag, _ in read.tags) == 1


def test_nothing_is_loaded_and_nothing_runs(text: str, read: Read) -> None:
    for tag, given in read.tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "embed", "base", "form"), tag
        for name, value in given.items():
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "data", "action", "poster"), name
            assert not name.endswith("href") or value.startswith("#"), value
            assert "://" not in value or name.startswith("xmlns"), value
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_every_name_within_a_drawing_is_its_own(text: str, read: Read) -> None:
    names = [given["id"] for _, given in read.tags if "id" in given]
    assert len(names) == len(set(names))
    for drawing in re.findall("<svg.*?</svg>", text, flags=re.DOTALL):
        here = set(re.findall(r'id="([^"]*)"', drawing))
        assert here == set(re.findall(r'(?:url\(|href=")#([^")]*)', drawing))


def test_tables_say_in_html_what_they_say_in_markdown(record: Record, read: Read) -> None:
    lines = [line for line in markdown(record).splitlines() if line.startswith("| ")]
    assert [line[2:-2].split(" | ") for line in lines] == read.rows
    assert read.rows == [[*map(str, row)] for t in tables.every(record) for row in (t.head, *t.rows)]
    assert [row.subject for row in record.rows] == [row[0] for row in read.rows[1 : 1 + len(record.rows)]]


def test_all_sentences_are_there_and_what_it_says_comes_first(record: Record, read: Read) -> None:
    said = conclusions(record)
    assert [line for line in read.texts if line in said] == said
    if said:
        assert read.texts[1 : 2 + len(said)] == ["What it says", *said]
    assert {*tables.settings(record), *tables.conditions(record)} <= {*read.texts}


def test_every_drawing_names_every_subject(record: Record, read: Read) -> None:
    titles = [given["aria-label"] for tag, given in read.tags if tag == "svg"]
    found = {title: squeezed("".join(texts)) for title, texts in zip(titles, read.drawings, strict=True)}
    everything = {
        "One text at a time",
        "Under load",
        "Quality, speed, size",
        "Roofline",
        "Where one text's time goes",
    }
    if record.work is None:
        everything = {"One text at a time", "Quality, speed, size"}
    assert found.keys() == everything
    for title, words in found.items():
        for row in record.rows:
            if row.fastest.stages_ms or not title.startswith("Where"):
                assert squeezed(row.subject) in words, title


def squeezed(words: str) -> str:
    """Without blanks: long names are broken into lines."""
    return re.sub(r"\s", "", words)


def test_names_are_escaped() -> None:
    text = page(made([LONG]))
    assert "<b>" not in text
    assert "&lt;b&gt; $1$ &quot;quoted&quot;: of" in text


def test_equal_records_give_equal_pages(record: Record, text: str) -> None:
    again = msgspec.json.decode(msgspec.json.encode(record), type=Record)
    assert page(again) == text


def test_what_too_few_answers_cannot_tell_is_left_out() -> None:
    few = made(OWN[:1], rounds=1, texts=1, rates=(1,))
    assert few.rows[0].loads()
    assert few.rows[0].latency(50) is None
    assert [plot.title for plot in plots.plots(few)] == [
        "One text at a time", "Quality, speed, size", "Roofline", "Where one text's time goes"
    ]  # fmt: skip


def test_subjects_differ_in_colour_or_shape() -> None:
    every = len(plots.COLOURS) * len(plots.MARKERS)
    assert len({tuple(plots._look(number).values()) for number in range(every)}) == every


@pytest.mark.parametrize("package", ["matplotlib", "scipy"])
def test_what_a_page_needs_can_be_asked_for_before(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=rf"^{package}, which .*headway\[bench\]") as caught:
        require()
    assert caught.value.exit_code == 5
