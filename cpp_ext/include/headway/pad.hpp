// From a ragged batch to a padded one, and back.
#pragma once

#include <cstdint>
#include <span>

#include "headway/array.hpp"

namespace headway {

// Letters: B batch, T = length, D hidden, N flat tokens. offsets: (B + 1), see ragged.hpp.
// left puts the padding before the tokens instead of after them.
// All throw std::invalid_argument for wrong offsets, and for a row longer than length.

// Token ids (N), with value where there is no token.  // (B, T)
Buffer<std::int64_t> pad(std::span<const std::int32_t> ids, std::span<const std::int64_t> offsets,
                         std::int64_t length, std::int64_t value, bool left);

// 1 where there is a token, 0 where there is padding.  // (B, T)
Buffer<std::int64_t> mask(std::span<const std::int64_t> offsets, std::int64_t length, bool left);

// The tokens' vectors end to end, the padding left out.  // (N, D)
Buffer<float> unpad(const Hidden& padded, std::span<const std::int64_t> offsets, bool left);

}  // namespace headway
