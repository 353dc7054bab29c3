// From a ragged batch to a padded one, and back.
#pragma once

#include "headway/cuda/device.hpp"

namespace headway::cuda {

// Letters: B batch, T length, D hidden, N flat tokens. offsets: (B + 1). left puts the padding
// before the tokens instead of after them. Of a row longer than T the first T tokens are taken, or
// with left the last. All throw Error.

struct PadIds {
    const std::int32_t* ids;      // (N)
    const std::int32_t* types;    // (N), or null: all 0
    const std::int64_t* offsets;  // (B + 1)
    std::int64_t batch;           // B
    std::int64_t length;          // T
    std::int64_t value;           // the id where there is no token
    bool left;
    std::int64_t* out_ids;    // (B, T)
    std::int64_t* out_mask;   // (B, T): 1 for tokens, 0 for padding; may be null
    std::int64_t* out_types;  // (B, T), 0 for padding; may be null
};

// All that a model is fed with, in one launch.
void pad_ids(const PadIds& given, Stream stream);

// Vectors of any type, taken as bytes.
struct MoveRows {
    const void* from;
    void* to;
    const std::int64_t* offsets;  // (B + 1)
    std::int64_t batch;           // B
    std::int64_t length;          // T
    std::int64_t row_bytes;       // of D elements; an even number
    bool left;
};

// With zeros in the padding.  // (N, D) -> (B, T, D)
void pad(const MoveRows& given, Stream stream);

// The padding left out.  // (B, T, D) -> (N, D)
void unpad(const MoveRows& given, Stream stream);

}  // namespace headway::cuda
