"""How the next tokens are chosen: the settings of a search, with the names that `generate()` gives them."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from headway.core.errors import UsageError

NEW_TOKENS = 20
"""tokens that are generated, at most, where no setting says how many: `generate()`'s own number"""

LISTS = ("eos_token_id", "forced_eos_token_id", "stop_strings")
"""settings that `generate()` also takes as one number or one string"""

FORMS = ("regex", "json_schema")
"""settings that say what form texts have; `generate()` has none"""


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Greedy search, beams or sampling. Raises UsageError, naming the setting, for what makes no sense."""

    max_new_tokens: int | None = None
    """tokens that are generated, at most; goes before `max_length`"""
    max_length: int | None = None
    """tokens of prompt and continuation together, at most; an encoder-decoder's start token counts"""
    min_new_tokens: int | None = None
    """tokens before an end token may come; goes before `min_length`"""
    min_length: int = 0
    """tokens of prompt and continuation together before an end token may come"""
    num_beams: int = 1
    """continuations that are followed at once; 1: the most probable next token each time"""
    num_return_sequences: int = 1
    """hypotheses that are returned, best first; not more than beams, but any number of samples without beams"""
    length_penalty: float = 1.0
    """beams are compared by sum of log probabilities / tokens ** this"""
    early_stopping: bool | Literal["never"] = False
    """True: end with as many finished hypotheses as beams; False: when no beam is better now;
    "never": when none can become better"""
    repetition_penalty: float = 1.0
    """scores of tokens already there are divided (if positive) or multiplied (if negative) by this"""
    no_repeat_ngram_size: int = 0
    """no sequence of so many tokens comes twice; 0: any may"""
    encoder_no_repeat_ngram_size: int = 0
    """no sequence of so many tokens of the source (without an encoder: of the prompt) comes; 0: any may"""
    bad_words_ids: list[list[int]] = []
    """sequences of tokens that are never completed"""
    suppress_tokens: list[int] = []
    """tokens that never come"""
    begin_suppress_tokens: list[int] = []
    """tokens that do not come first"""
    forced_bos_token_id: int | None = None
    """the first token after a prompt of one token"""
    forced_eos_token_id: list[int] = []
    """the last token where the search would end for its length; one of these"""
    renormalize_logits: bool = False
    """probabilities sum to 1 again after all of the above"""
    num_beam_groups: int = 1
    """groups of equally many beams, each kept from the tokens of the groups before it"""
    diversity_penalty: float = 0.0
    """taken from a token's score for each beam of a group before that has just chosen it"""
    do_sample: bool = False
    """tokens are drawn by their probabilities; the settings from here to `seed` change nothing without this"""
    temperature: float = 1.0
    """scores are divided by this"""
    top_k: int = 50
    """of so many of the most probable tokens; 0: of all"""
    top_p: float = 1.0
    """of the fewest most probable tokens with this probability together"""
    min_p: float = 0.0
    """of tokens with at least this share of the greatest probability"""
    typical_p: float = 1.0
    """of the tokens of most usual information with this probability together"""
    seed: int = 0
    """of the random numbers; the same text and seed give the same tokens, whatever else is in the batch"""
    stop_strings: list[str] = []
    """a text ends with the token that completes one of these, itself included; a prompt's end counts as text"""
    force_words_ids: list[list[int | list[int]]] = []
    """sequences of tokens that come somewhere in the text, in any order, or lists of such of which one does; for beams"""
    regex: str | None = None
    """the whole text is one that this pattern describes"""
    json_schema: dict[str, Any] | None = None
    """the whole text is JSON that this schema describes"""
    max_time: float | None = None
    """seconds after which a search ends with its next token: what goes on is found as it stands"""
    eos_token_id: list[int] = []
    """tokens that end a hypothesis"""
    pad_token_id: int | None = None
    """what a group of beams that is done goes on with, as far as the others are kept from it; an end token if None"""
    decoder_start_token_id: int | None = None
    """the prompt of an encoder-decoder"""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(name, f"must be at least {least}, not {value}")
            if value is not None and value > MOST.get(name, LONGEST):
                raise UsageError(name, f"must be at most {MOST.get(name, LONGEST)}, not {value}")
        for name, (least, most) in WITHIN.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(name, f"must be from {least} to {most}, not {getattr(self, name)}")
        if self.num_return_sequences > self.num_beams and not (self.do_sample and self.num_beams == 1):
            raise UsageError(
                "num_return_sequences",
                f"{self.num_return_sequences} is more than num_beams, {self.num_beams}",
            )
        if not 0 < self.repetition_penalty < math.inf:
            raise UsageError("repetition_penalty", f"must be above 0, not {self.repetition_penalty}")
        if self.max_time is not None and not self.max_time >= 0:
            raise UsageError("max_time", f"must be at least 0, not {self.max_time}")
        self._check_groups()
        if self.do_sample:
            self._check_sampling()
        if self.max_new_tokens is not None and (self.min_new_tokens or 0) > self.max_new_tokens:
            raise UsageError("min_new_tokens", f"{self.min_new_tokens} is more than max_new_tokens")
        by_length = self.max_new_tokens is None and self.min_new_tokens is None
        if by_length and self.max_length is not None and self.min_length > self.max_length:
            raise UsageError("min_length", f"{self.min_length} is more than max_length")
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            forced = set(_flat(getattr(self, name)))
            if forced and forced <= set(self.suppress_tokens):
                raise UsageError(name, "is among suppress_tokens")
        if [] in self.bad_words_ids:
            raise UsageError("bad_words_ids", "holds a sequence without tokens")
        if "" in self.stop_strings:
            raise UsageError("stop_strings", "holds an empty one")
        self._check_form()
        if self.force_words_ids:
            self._check_phrases()

    def _check_phrases(self) -> None:
        if self.num_beams < 2 or self.do_sample or self.num_beam_groups > 1:
            raise UsageError(
                "force_words_ids", "are for num_beams above 1, without do_sample and groups of beams"
            )
        if self.form:
            raise UsageError("force_words_ids", f"are not for {self.form}, which can say the same")
        for phrase in self.phrases:
            if not phrase or [] in phrase:
                raise UsageError("force_words_ids", "holds a sequence without tokens")
            for one in phrase:
                if any(one == other[: len(one)] and one != other for other in phrase):
                    raise UsageError("force_words_ids", f"{one} begins another one of the same list")
            if all(set(one) & set(self.suppress_tokens) for one in phrase):
                raise UsageError("force_words_ids", f"{phrase[0]} has one of suppress_tokens")
        if self.max_new_tokens is not None:
            self.check_room(self.max_new_tokens)

    @property
    def phrases(self) -> list[list[list[int]]]:
        """Of `force_words_ids`, each by its alternatives. Raises UsageError for one mixed of tokens and sequences."""
        found: list[list[list[int]]] = []
        for given in self.force_words_ids:
            tokens = [part for part in given if isinstance(part, int)]
            others = [part for part in given if not isinstance(part, int)]
            if tokens and others:
                raise UsageError("force_words_ids", "holds a list of both tokens and sequences")
            found.append(others if others else [tokens])
        return found

    def check_room(self, new: int) -> None:
        """Raise UsageError if what must come is more than these tokens."""
        least = sum(min(map(len, phrase)) for phrase in self.phrases)
        if least > new:
            raise UsageError("force_words_ids", f"are {least} tokens, of {new} that may come")

    def _check_form(self) -> None:
        if self.regex is not None and self.json_schema is not None:
            raise UsageError("json_schema", "is one form and regex another; give one of them")
        if self.form and self.stop_strings:
            raise UsageError("stop_strings", f"would end a text before it has the form of {self.form}")

    @property
    def form(self) -> str | None:
        """The setting that says what form texts have."""
        return next((name for name in FORMS if getattr(self, name) is not None), None)

    def _check_groups(self) -> None:
        if self.num_beams % self.num_beam_groups:
            raise UsageError(
                "num_beam_groups", f"{self.num_beam_groups} do not divide num_beams, {self.num_beams}"
            )
        if self.num_beam_groups > 1 and self.do_sample:
            raise UsageError("num_beam_groups", "are not for do_sample")
        if self.num_beam_groups == 1 and self.diversity_penalty:
            raise UsageError("diversity_penalty", "is for num_beam_groups above 1")

    def _check_sampling(self) -> None:
        if not COLDEST <= self.temperature < math.inf:
            raise UsageError("temperature", f"must be at least {COLDEST}, not {self.temperature}")
        if self.top_k < 0:
            raise UsageError("top_k", f"must be at least 0, not {self.top_k}")
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(name, f"must be above 0 and at most 1, not {getattr(self, name)}")

    def changed(self, **settings: Any) -> Search:
        """The same with other values for some settings. Raises UsageError for an unknown one or a bad value.

        A length that is given replaces the one that would go before it: `max_length` an earlier `max_new_tokens`, and
        `min_length` an earlier `min_new_tokens`.
        """
        for length, earlier in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
            if settings.get(length) is not None:
                settings.setdefault(earlier, None)
        for name, value in settings.items():
            if name not in self.__struct_fields__:
                raise UsageError(name, f"no such setting; there are {', '.join(self.__struct_fields__)}")
            if name in LISTS and isinstance(value, int | str):
                settings[name] = [value]
        try:
            return msgspec.convert(msgspec.to_builtins(self) | settings, type(self))
        except msgspec.ValidationError as error:
            raise UsageError("generation settings", str(error)) from error

    def check(self, vocabulary: int) -> None:
        """Raise UsageError for a token that the model does not have."""
        for name in TOKENS:
            for token in _flat(getattr(self, name)):
                if not 0 <= token < vocabulary:
                    raise UsageError(name, f"the model has no token {token}; it has {vocabulary}")
        if self.form and not self.eos_token_id:
            raise UsageError(
                self.form, "a text of such a form ends by an eos_token_id, which there is none of"
            )

    def longest(self, prompt: int) -> int:
        """Tokens of prompt and continuation together, at most. Raises UsageError if none may be generated."""
        if self.max_new_tokens is not None:
            return prompt + self.max_new_tokens
        if self.max_length is None:
            return prompt + NEW_TOKENS
        if self.max_length <= prompt:
            raise UsageError(
                "max_length",
                f"{self.max_length} leaves no room after a prompt of {prompt} tokens, which count; "
                "max_new_tokens counts new ones alone",
            )
        return self.max_length

    def shortest(self, prompt: int) -> int:
        """Tokens of prompt and continuation together before an end token may come."""
        return self.min_length if self.min_new_tokens is None else prompt + self.min_new_tokens


LONGEST = 2**31 - 1
"""of settings that count tokens"""
MOST = {"num_beams": 1024}
"""each has its own cache of keys and values"""
WITHIN = {
    "length_penalty": (-30, 30),  # so that no number of tokens to this power is too large for a float
    "diversity_penalty": (0, 1e6),
    "min_p": (0, 1),
    "seed": (0, 2**64 - 1),
}
COLDEST = 1e-6
"""of temperatures, so that no score divided by one is too large for a float"""
LEAST = {
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "min_length": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
}
TOKENS = (
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "force_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
)


def _flat(tokens: int | list[Any] | None) -> list[int]:
    """Tokens of a setting that holds none, one, some, or sequences of them."""
    if isinstance(tokens, list):
        return [token for part in tokens for token in _flat(part)]
    return [] if tokens is None else [tokens]
