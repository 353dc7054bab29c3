// From scores of tags to the best sequence that a tagging scheme allows, text by text.
#pragma once

#include <cstdint>
#include <span>

#include "headway/array.hpp"

namespace headway {

// Which tags may stand where. Views, borrowed from the caller. C tags.
struct Grammar {
    const bool* follows;  // (C, C): at a * C + b, whether tag b may stand right after tag a
    const bool* begins;   // (C): whether a text may begin with it
    const bool* ends;     // (C): whether a text may end with it
    std::int64_t count;   // C
};

// Both take scores (W, C), the logarithms of the words' probabilities up to a constant for each
// word, and offsets (B + 1), see ragged.hpp. Both throw std::invalid_argument, naming the word, for
// NaN and +inf, for C other than the grammar's or 0, and for wrong offsets; -inf entries are
// welcome.

// The tags of the allowed sequence with the greatest sum, which is each word's first best tag
// wherever these make an allowed sequence. Of equal sums the one with the lowest last tag, then the
// lowest before it, and so on. A text without an allowed sequence gets each word's first best tag.
// Sums are of doubles.  // (W, C), (B + 1) -> (W)
Buffer<std::int32_t> tags(const Matrix& scores, std::span<const std::int64_t> offsets,
                          const Grammar& grammar);

// A stretch of words [first, after), inside one text.
struct Stretch {
    std::int64_t first;
    std::int64_t after;
};

// For each stretch the probability, among all allowed sequences of its text, of those that have
// exactly the chosen tags there and do not go on behind it with a tag that `continues` (C, C) the
// last of them. By the forward-backward algorithm. 0 in a text without an allowed sequence. Also
// throws for chosen tags outside 0 to C - 1 and for stretches that are empty, not in order, or
// outside one text.  // (W, C), (B + 1), (W), (S) -> (S)
Buffer<double> stretch_chances(const Matrix& scores, std::span<const std::int64_t> offsets,
                               const Grammar& grammar, const bool* continues,
                               std::span<const std::int32_t> chosen,
                               std::span<const Stretch> stretches);

}  // namespace headway
