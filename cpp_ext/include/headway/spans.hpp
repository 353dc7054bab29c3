// The best spans of tokens, for extractive question answering.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "headway/array.hpp"

namespace headway {

// R windows of N tokens in all, end to end; Q questions, each with windows of its own. Views,
// borrowed from the caller.
struct SpanScores {
    std::span<const float> start;           // (N): how well an answer begins with the token
    std::span<const float> end;             // (N): how well it ends with it
    std::span<const std::int64_t> first;    // (N): the token's first character, or -1: no answer's
    std::span<const std::int64_t> after;    // (N): the character after its last
    std::span<const std::int64_t> windows;  // (R + 1): offsets of the windows' tokens
    std::span<const std::int64_t> questions;  // (Q + 1): offsets of the questions' windows
};

struct Spans {
    Buffer<double> scores;        // (Q, k), descending; -inf where there are no more
    Buffer<std::int64_t> places;  // (Q, k, 2): first character, character after the last; or 0, 0
};

// For each question the k best spans of at most `longest` tokens of one window. A span's score is
// its first token's start and its last token's end, as doubles; the same characters in two windows
// count once, with the better score. Spans without characters are none. Of equal scores the span
// that begins first, then the one that ends first. Unless `overlap`, each shares no character with
// a better one. Throws std::invalid_argument for NaN and infinite scores, k or longest below 1,
// arrays of different lengths, and wrong offsets.
Spans spans(const SpanScores& given, std::int64_t k, std::int64_t longest, bool overlap);

}  // namespace headway
