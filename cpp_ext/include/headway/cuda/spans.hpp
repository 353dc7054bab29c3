// The best spans of tokens, for extractive question answering.
#pragma once

#include "headway/cuda/device.hpp"

namespace headway::cuda {

inline constexpr std::int64_t most_spans = 256;  // of a question

// R windows of N tokens in all, end to end; Q questions, each with windows of its own. What is
// found is what spans.hpp finds; a token with NaN or an infinite score, which is refused there,
// begins and ends no span.
struct Spans {
    const void* start;              // (N): how well an answer begins with the token
    const void* end;                // (N): how well it ends with it
    Type type;                      // of start and end
    const std::int64_t* first;      // (N): the token's first character, or -1: no answer's
    const std::int64_t* after;      // (N): the character after its last
    const std::int64_t* windows;    // (R + 1): offsets of the windows' tokens
    const std::int64_t* questions;  // (Q + 1): offsets of the questions' windows
    std::int64_t count;             // Q
    std::int64_t k;                 // spans of a question, 1 to most_spans
    std::int64_t longest;           // tokens of a span, at least 1
    bool overlap;                   // whether they may share characters
    double* scores;                 // (Q, k), descending; -inf where there are no more
    std::int64_t* places;           // (Q, k, 2): first character, character after the last; or 0, 0
};

// Throws Error.
void spans(const Spans& given, Stream stream);

}  // namespace headway::cuda
