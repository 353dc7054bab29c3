from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Beams:
    """
    Beam search on the GPU for many sources at once: given the same float32 log
    probabilities, the tokens are those of headway.cpp_ext.Searcher. Sources begin together
    and keep their rows to the end; with one beam the search is greedy. All calls on one
    stream, by one thread at a time.
    """

    def __init__(self, vocabulary: int, prompts: Sequence[Sequence[int]], settings: object, longest: Sequence[int], shortest: Sequence[int], sources: Sequence[Sequence[int]] | None = None, room: tuple[int, int] = (0, 0)) -> None:
        """
        prompts: for each source the tokens that the decoder has read. settings: a
        headway.core.search.Search for all. longest, shortest: for each, tokens of prompt and
        continuation together, at most and before an end token may come. sources: what the
        encoder has read; without an encoder the prompts. ValueError for what makes no sense,
        for do_sample, groups of beams, phrases and stop strings, and unless num_beams * max(2,
        1 + end tokens) is at most 256. room: tokens of prompt and continuation, and of a source,
        that there shall be memory for, for sources of a later begin().
        """

    def begin(self, prompts: Sequence[Sequence[int]], longest: Sequence[int], shortest: Sequence[int], sources: Sequence[Sequence[int]] | None = None, stream: int = 0) -> None:
        """
        Begin anew in the same memory, with equally many sources and the same settings. Waits for
        the stream. ValueError as of the constructor, and for what there is no room for.
        """

    @property
    def rows(self) -> int:
        """
        How many rows of logits the next step() takes: one for each source at first, then
        num_beams.
        """

    def step(self, logits: Annotated[NDArray, dict(shape=(None, None), order='C', device='cuda', writable=False)], stream: int = 0) -> None:
        """
        Choose the next tokens by logits (rows, V). NaN and +inf in them stop the search: the
        step changes nothing, nor do steps after it, until done() or found() has told.
        ValueError for wrong shapes and types.
        """

    def record(self, logits: int, type: str, first: bool, stream: int = 0) -> None:
        """
        step() for work that is captured and done again: no account is kept of steps, so that first
        tells whether it is the first one. logits: an address in the GPU's memory, of rows of V
        numbers of that type (float32, float16, bfloat16). ValueError for an unknown type.
        """

    @property
    def addresses(self) -> tuple[int, int, int]:
        """
        Where tokens and parents lie in the GPU's memory, and flags, int32 (B + 1): whether each
        source has ended, and the row of wrong logits, or no_wrong_row where there was none.
        """

    @property
    def tokens(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), device='cuda')]:
        """
        The next token of each row (B * K), 0 where its source is done; on the GPU, written anew
        by each step.
        """

    @property
    def parents(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), device='cuda')]:
        """
        The row of the last logits that each row follows (B * K), itself where its source is
        done; on the GPU, written anew by each step. As many as possible follow themselves.
        """

    def done(self, stream: int = 0) -> list[bool]:
        """
        Whether each source has ended. Waits for the stream. ValueError for NaN and +inf in
        logits.
        """

    def found(self, source: int, stream: int = 0) -> list[tuple[list[int], float, list[float]]]:
        """
        What has ended of a source so far, best first: tokens after the prompt, score, log
        probability of each token. Waits for the stream. ValueError as of done(), and for an
        unknown source.
        """

    def found_all(self, stream: int = 0) -> list[list[tuple[list[int], float, list[float]]]]:
        """found() of every source, with few copies."""

no_wrong_row: int = 2139062143

def check_device() -> None:
    """UnavailableError unless there is a GPU that can be used."""

def synchronize(stream: int = 0) -> None:
    """Wait for all work on the stream. RuntimeError where some of it failed."""

def follow(from_caches: int, to_caches: int, parents: int, written: int, shape: Sequence[int], at: int = 0, stream: int = 0) -> None:
    """
    Let row r (R) of caches (C) become what row parents[r] of others, or of themselves, was in
    its first `written` columns, all in one launch that may be captured. All is told by
    addresses in the GPU's memory: from_caches and to_caches of C addresses, parents of R int64,
    written of one, and at, unless 0, of one: the column that they begin at. shape: (C, R,
    heads, columns of from, columns of to, bytes of a column). In place, who is followed must
    follow itself, as Beams gives them; what the arrays hold is not checked. ValueError for
    a shape that makes no sense.
    """

def advance(numbers: int, count: int, by: int = 1, stream: int = 0) -> None:
    """
    Add a number to each of count int64 at an address in the GPU's memory, in one launch.
    """

def pad_ids(ids: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cuda', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], value: int, out_ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cuda')], out_mask: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cuda')] | None = None, out_types: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cuda')] | None = None, types: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cuda', writable=False)] | None = None, left: bool = False, stream: int = 0) -> None:
    """
    Ragged token ids (N) to what a model is fed with (B, T), in one launch: ids with value
    in the empty places, on the right or on the left; mask, 1 for tokens and 0 for padding;
    token types, 0 where none are given. offsets (B + 1): row b is ids[offsets[b]:offsets[b
    + 1]]; what they hold is not checked. Of a longer row than T the first T tokens are
    taken, with left the last. ValueError for wrong shapes.
    """

def pad(hidden: Annotated[NDArray, dict(shape=(None, None), order='C', device='cuda', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], out: Annotated[NDArray, dict(shape=(None, None, None), order='C', device='cuda')], left: bool = False, stream: int = 0) -> None:
    """
    Vectors of tokens (N, D) to a padded batch (B, T, D), with zeros in the padding. Others
    as of pad_ids. ValueError for wrong shapes and types.
    """

def unpad(padded: Annotated[NDArray, dict(shape=(None, None, None), order='C', device='cuda', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], out: Annotated[NDArray, dict(shape=(None, None), order='C', device='cuda')], left: bool = False, stream: int = 0) -> None:
    """
    The tokens' vectors of a padded batch (B, T, D) end to end (N, D): pad undone. Others as
    of pad_ids. ValueError for wrong shapes and types.
    """

def pool(hidden: Annotated[NDArray, dict(shape=(None, None, None), order='C', device='cuda', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], kind: str, normalize: bool, out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cuda')], stream: int = 0) -> None:
    """
    One vector per text (B, D) from one per token (B, T, D): the mean or max of each row's
    first lengths[b] tokens, its first token ("cls") or its last one ("last"); normalize
    divides by max(L2 norm, 1e-12). Sums are float32; a row's result depends on that row
    alone. A row without tokens gives NaN. ValueError for wrong shapes and types, and for an
    unknown kind.
    """

def pool_ragged(hidden: Annotated[NDArray, dict(shape=(None, None), order='C', device='cuda', writable=False)], offsets: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], kind: str, normalize: bool, out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cuda')], stream: int = 0) -> None:
    """
    pool for a ragged batch: hidden (N, D), offsets (B + 1), to (B, D). ValueError as of
    pool.
    """

def quantize(x: Annotated[NDArray, dict(shape=(None, None), order='C', device='cuda', writable=False)], out: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cuda')], scales: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cuda')], stream: int = 0) -> None:
    """
    Floats (N, D) to int8 (N, D) with one scale per token (N): max(greatest size / 127,
    1e-20), as the exporter's int8 has it; values are rounded half to even. ValueError for
    wrong shapes and types.
    """

def spans(start: Annotated[NDArray, dict(shape=(None,), order='C', device='cuda', writable=False)], end: Annotated[NDArray, dict(shape=(None,), order='C', device='cuda', writable=False)], first: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], after: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], windows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], questions: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cuda', writable=False)], longest: int, out_scores: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cuda')], out_places: Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), order='C', device='cuda')], overlap: bool = True, stream: int = 0) -> None:
    """
    The k best spans of each question, as headway.cpp_ext.spans finds them: out_scores (Q,
    k), descending, -inf where there are no more, and out_places (Q, k, 2), first character
    and character after the last. start, end, first, after (N), windows (R + 1), questions
    (Q + 1) and longest as there; a token with NaN or an infinite score begins and ends no
    span. ValueError for wrong shapes and types, and unless 1 <= k <= 256 and longest is at
    least 1.
    """

def tags(logits: Annotated[NDArray, dict(shape=(None, None), order='C', device='cuda', writable=False)], out_tags: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cuda')], out_chances: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cuda')], stream: int = 0) -> None:
    """
    Of logits (W, C) the first index of each row's maximum (W) and the probability that
    softmax gives it (W); -1 and NaN for rows with NaN or +inf, or of nothing but -inf.
    ValueError for wrong shapes and types, and for C = 0.
    """
