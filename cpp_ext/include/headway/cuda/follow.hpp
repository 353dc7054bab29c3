// Rows of key/value caches that go on as other rows were, and counters that go on.
#pragma once

#include "headway/cuda/device.hpp"

namespace headway::cuda {

// All caches of a decoder, of one shape, in one launch. Row r of `to` becomes what row parents[r]
// of `from` was, in its first columns, as many as are written. Both may be the same caches: then a
// row that follows itself is left alone, and one that is followed must follow itself, as Beams
// gives them. Otherwise they must not overlap.
struct Follow {
    const void* const* from;      // (C): caches (rows of before, heads, from_columns, D)
    void* const* to;              // (C): caches (R, heads, to_columns, D)
    const std::int64_t* parents;  // (R)
    const std::int64_t* written;  // (1): columns
    const std::int64_t* at;       // (1): the column of `to` that they begin at; null: the first
    std::int64_t caches;          // C
    std::int64_t rows;            // R
    std::int64_t heads;
    std::int64_t from_columns;
    std::int64_t to_columns;
    std::int64_t bytes;  // of D numbers; even
};

// Throws Error.
void follow(const Follow& given, Stream stream);

// Adds the same to each of some numbers. Throws Error.
void advance(std::int64_t* numbers, std::int64_t count, std::int64_t by, Stream stream);

}  // namespace headway::cuda
