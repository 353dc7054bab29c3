from collections.abc import Sequence
from typing import Annotated, overload

import numpy
from numpy.typing import NDArray


def follow(caches: Sequence[Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order='C', device='cpu')]], origin: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu')], parents: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], written: int) -> None:
    """
    Let each row of the caches (R, heads, columns, width) be what its parent (R) was, in its first
    `written` columns, in place. origin (R, columns): the row that wrote what stands in each
    column; only what stands behind the first difference is copied, and origin follows.
    ValueError, and nothing is changed, for other shapes, and for a row that shall follow another
    and be followed.
    """

def cpu_features() -> dict[str, bool]:
    """
    What this CPU can do and the operating system lets programs use: feature name, as in
    /proc/cpuinfo, to yes or no. All False on other architectures than x86-64.
    """

def describe(array: object) -> tuple[int, str, tuple[int, ...], bool, int, int]:
    """
    What an array is that has __dlpack__, or a capsule that one gave: its address, its type as
    "int64", its shape, whether its elements lie in order without gaps, and its device as
    DLPack's kind and number. TypeError for anything else.
    """

def lend(address: int, shape: Sequence[int], kind: int, number: int, owner: object) -> object:
    """
    Memory at an address as an array of float32 in that shape on a device, given as DLPack's
    kind and number. It has __dlpack__, and holds the owner as long as anybody holds it.
    """

def levels() -> list[str]:
    """
    The instruction sets the kernels can use here, slowest first: "scalar" always,
    then "avx2" and "avx512" where this build and this CPU have them.
    """

def level() -> str:
    """
    The instruction set in use: at first the last of levels(), or what the environment
    variable HEADWAY_SIMD names.
    """

def set_level(name: str) -> None:
    """
    Use this instruction set in the whole process. ValueError when levels() lacks it.
    """

@overload
def pad(ids: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], length: int, value: int, left: bool = False) -> Annotated[NDArray[numpy.int64], dict(shape=(None, None))]: ...

@overload
def pad(ids: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], length: int, value: int, left: bool = False) -> Annotated[NDArray[numpy.int64], dict(shape=(None, None))]:
    """
    Ragged token ids (N) to a padded batch (B, T), T = length, with value in the empty places:
    on the right, or on the left. offsets (B + 1) start at 0 and end at N; row b is
    ids[offsets[b]:offsets[b + 1]]. ValueError for wrong offsets and rows longer than length.
    """

@overload
def mask(offsets: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], length: int, left: bool = False) -> Annotated[NDArray[numpy.int64], dict(shape=(None, None))]: ...

@overload
def mask(offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], length: int, left: bool = False) -> Annotated[NDArray[numpy.int64], dict(shape=(None, None))]:
    """
    1 for tokens and 0 for padding (B, T), T = length, for the ragged batch that offsets (B + 1)
    describe. ValueError for wrong offsets and rows longer than length.
    """

@overload
def unpad(padded: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], left: bool = False) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]: ...

@overload
def unpad(padded: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], left: bool = False) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """
    The tokens' vectors of a padded batch (B, T, D) end to end (N, D), without the padding: pad
    undone. ValueError for wrong offsets and rows longer than T.
    """

@overload
def pool(hidden: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], kind: str, normalize: bool) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]: ...

@overload
def pool(hidden: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], kind: str, normalize: bool) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """
    One vector per text (B, D) from one per token (B, T, D): the mean or max of each row's first
    lengths[b] tokens, or its first token ("cls"); normalize divides by max(L2 norm, 1e-12).
    A row's result depends on that row alone, to the last bit. ValueError for a length outside
    1 to T and for an unknown kind.
    """

@overload
def pool_ragged(hidden: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], kind: str, normalize: bool) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]: ...

@overload
def pool_ragged(hidden: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], kind: str, normalize: bool) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """
    pool for a ragged batch: hidden (N, D), offsets (B + 1) that start at 0 and end at N, to
    (B, D). ValueError for wrong offsets, for a row without tokens and for an unknown kind.
    """

class TokenTexts:
    """
    What each token adds to a text, in UTF-8, for stop strings; made once for a tokenizer.
    """

    def __init__(self, texts: Sequence[bytes]) -> None: ...

class Searcher:
    """
    The search for the next tokens of many sentences at once, fed with logits. Sentences stand in
    the order in which they entered. To be used by one thread at a time.
    """

    def __init__(self, vocabulary: int) -> None: ...

    def add(self, prompt: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], settings: object, longest: int, shortest: int, source: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None, texts: TokenTexts | None = None) -> int:
        """
        A sentence enters, at any time; returns its key. prompt (T): what the decoder has read.
        settings: a headway.core.search.Search. longest, shortest: tokens of prompt and continuation
        together, at most and before an end token may come. source (S): what the encoder has read;
        without an encoder the prompt. texts: for stop_strings. ValueError for what makes no sense.
        """

    @property
    def rows(self) -> int:
        """
        How many rows of logits the next advance() takes: 1 for a sentence that has just entered, then
        num_beams, without those of groups that are done, or samples that are not finished.
        """

    def advance(self, logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], allowed: Annotated[NDArray[numpy.uint32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None = None) -> None:
        """
        Choose the next tokens by logits (rows, V), which are only read. allowed (rows, V / 32): a bit
        for each token that may come, the lowest first; all may if None. Greedy search and samples end
        where none may. ValueError, and nothing is changed, for other shapes, NaN and +inf; -inf
        entries are welcome.
        """

    @property
    def tokens(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """The next token (R) of each row of the sentences that go on."""

    @property
    def parents(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """
        The row of the last logits (R) that each row of the sentences that go on follows. As many as
        possible follow the row of their own place in the sentence.
        """

    @property
    def finished(self) -> list[int]:
        """Keys of the sentences that the last advance() ended."""

    def found(self, key: int) -> list[tuple[list[int], float, list[float]]]:
        """
        What has ended of a sentence so far, best first: tokens after the prompt, score, log
        probability of each token; at the end none where the settings forbid all. IndexError for an
        unknown key.
        """

    def settled(self, key: int) -> list[int]:
        """
        Tokens after the prompt that the best hypothesis is sure to begin with. IndexError for an
        unknown key.
        """

    def end(self, key: int) -> None:
        """
        End a sentence now: what goes on is found as it stands, as if the longest were reached; its
        rows are left out from now on. IndexError for an unknown key.
        """

    def drop(self, key: int) -> None:
        """
        Forget a sentence, finished or not; its rows are left out from now on. IndexError for an
        unknown key.
        """

def softmax(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """
    Probabilities (B, C) of logits (B, C), row by row. -inf gives 0. ValueError for NaN, +inf, a
    row of nothing but -inf, and C = 0.
    """

def argmax(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.int32], dict(shape=(None,))]:
    """
    Where each row's maximum stands (B), the first among equals. ValueError for NaN and C = 0.
    """

def top_k(values: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], k: int) -> tuple[Annotated[NDArray[numpy.float32], dict(shape=(None, None))], Annotated[NDArray[numpy.int32], dict(shape=(None, None))]]:
    """
    The k largest entries of each row, descending (B, k), and where they stand (B, k), the lower
    index first among equals. ValueError for NaN and unless 1 <= k <= C.
    """

def spans(start: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], first: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], after: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], windows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], questions: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], k: int, longest: int, overlap: bool = True) -> tuple[Annotated[NDArray[numpy.float64], dict(shape=(None, None))], Annotated[NDArray[numpy.int64], dict(shape=(None, None, None))]]:
    """
    The k best spans of each question: scores (Q, k), descending, -inf where there are no more,
    and places (Q, k, 2), first character and character after the last. start, end (N): scores
    of tokens as an answer's first and last; first, after (N): their characters, first -1 where
    none can be; windows (R + 1): offsets of the windows' tokens; questions (Q + 1): offsets of
    the questions' windows. longest: tokens in a span. The same characters count once; of equal
    scores the span that begins first, then the one that ends first. Unless overlap, none shares
    a character with a better one. ValueError for NaN, infinite scores and wrong shapes.
    """

def tags(scores: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], follows: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order='C', device='cpu', writable=False)], begins: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C', device='cpu', writable=False)], ends: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.int32], dict(shape=(None,))]:
    """
    The best allowed tags (W) of words with scores (W, C), logarithms of probabilities up to a
    constant for each word. offsets (B + 1): text b is words offsets[b] to offsets[b + 1].
    follows (C, C): whether the second tag may stand right after the first; begins, ends (C):
    whether a text may begin or end with it. Each word's first best tag wherever these are an
    allowed sequence, and where there is no allowed one; of equal sums the lowest last tag, then
    the lowest before it, and so on. ValueError for NaN, +inf and wrong shapes.
    """

def stretch_chances(scores: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], follows: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order='C', device='cpu', writable=False)], begins: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C', device='cpu', writable=False)], ends: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C', device='cpu', writable=False)], continues: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order='C', device='cpu', writable=False)], chosen: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], stretches: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.float64], dict(shape=(None,))]:
    """
    For each stretch (S, 2) of words, first and after the last, in order, inside one text: the
    probability (S), among the allowed sequences, of the chosen tags (W) there, not followed by
    a tag that continues (C, C) the last of them. Others as of tags. 0 in a text without an
    allowed sequence. ValueError for NaN, +inf, wrong shapes, tags and stretches.
    """
