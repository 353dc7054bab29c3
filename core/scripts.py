"""Scripts and characters that decide where a word may end."""

from __future__ import annotations

import re
import unicodedata

IDEOGRAPHS = (
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f"
)
"""those of Chinese, Japanese and Korean, as BERT's tokenizer has them"""
UNSPACED = (
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f"  # Thai, Lao, Tibetan; Myanmar;
    r"\ua980-\ua9ff\uaa60-\uaadf"  # Khmer; Tai Le, New Tai Lue; Tai Tham; Balinese; Javanese, Myanmar; Myanmar, Tai Viet
    r"\u3005-\u3007\u303b\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"  # kana, bopomofo
    r"\ua000-\ua4cf\U0002b820-\U0002ebef\U00030000-\U000323af"  # Yi; ideographs that BERT does not know
)
"""scripts that are written without spaces between words, beside `IDEOGRAPHS`; blocks of the Unicode Standard 15"""
HANGUL = r"\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc"
"""has spaces, but particles without one behind the words that they belong to"""
EXTENDING = re.compile(
    r"[\u200c\u200d\uff9e\uff9f\u0e33\u0eb3\u1160-\u11ff\ud7b0-\ud7fb\U000e0020-\U000e007f]"
)
"""characters that are no marks by category and yet belong to the one before, as in Unicode's grapheme clusters:
joiners, vowels and finals that are written apart, tags of flags"""
STACKING = "\u1039\u17d2\u1a60"
"""signs of Myanmar, Khmer and Tai Tham that put the consonant behind them below the one before"""
NO_SPACES = re.compile(rf"[{IDEOGRAPHS}{UNSPACED}]")
TOKEN_BOUNDARIES = re.compile(rf"[{IDEOGRAPHS}{UNSPACED}{HANGUL}]")
"""a character of a script in which an entity may end inside a run of letters"""


def extends(text: str, place: int) -> bool:
    """Whether the character belongs to the one before: marks, variation selectors, joiners, stacked consonants."""
    character = text[place]
    if character.isascii() or place == 0:
        return False
    if unicodedata.category(character)[0] == "M" or EXTENDING.match(character) is not None:
        return True
    return text[place - 1] in STACKING and character.isalpha()


def cluster_end(text: str, end: int) -> int:
    """`end`, moved behind all that belongs to the character before it."""
    while 0 < end < len(text) and extends(text, end):
        end += 1
    return end
