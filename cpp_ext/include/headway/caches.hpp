// Rows of key/value caches that go on as other rows were, in place.
#pragma once

#include <cstdint>
#include <span>

namespace headway {

// A cache of all rows, borrowed from the caller.  // (rows, heads, columns, width)
struct Cache {
    float* data;
    std::int64_t rows;
    std::int64_t heads;
    std::int64_t columns;
    std::int64_t width;
};

// Which row wrote what stands in each column, borrowed from the caller.  // (rows, columns)
struct Origin {
    std::int64_t* data;
    std::int64_t rows;
    std::int64_t columns;

    std::int64_t* row(std::int64_t r) const { return data + r * columns; }
};

// Lets each row be what its parent was in its first columns, as many as are written. Copied is what
// stands behind the first column that another row wrote in the two: rows that come from one
// another are the same up to there. Throws std::invalid_argument, and changes nothing, for other
// shapes, and for a row that shall follow another and be followed.  // parents: (rows)
void follow(std::span<const Cache> caches, const Origin& origin,
            std::span<const std::int64_t> parents, std::int64_t written);

}  // namespace headway
