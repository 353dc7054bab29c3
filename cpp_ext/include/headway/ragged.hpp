// A ragged batch: rows end to end, and offsets that say where each row starts and the last one
// ends.
#pragma once

#include <cstdint>
#include <span>

namespace headway {

// Throws std::invalid_argument unless offsets start at 0 and never decrease.  // (B + 1)
void check_offsets(std::span<const std::int64_t> offsets);

// The same, and they end at the number of tokens there are.
void check_offsets(std::span<const std::int64_t> offsets, std::int64_t tokens);

// Throws std::invalid_argument when a row is longer than length.
void check_rows_fit(std::span<const std::int64_t> offsets, std::int64_t length);

// How many rows valid offsets describe: B.
inline std::int64_t row_count(std::span<const std::int64_t> offsets) {
    return static_cast<std::int64_t>(offsets.size()) - 1;
}

}  // namespace headway
