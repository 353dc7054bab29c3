// Padding: checks, rows, and the choice of instruction set.
#include "headway/pad.hpp"

#include <cstring>

#include "dispatch.hpp"
#include "headway/ragged.hpp"
#include "pad_kernels.hpp"
#include "refuse.hpp"

namespace headway {
namespace {

const PadKernels& kernels() { return in_use<PadKernels>(HEADWAY_EVERY_LEVEL(pad_kernels)); }

// Where a row's tokens and padding stand inside its T columns.
struct Place {
    std::int64_t tokens, padding;  // how many
    std::int64_t first_token, first_padding;
};

Place place(std::span<const std::int64_t> offsets, std::int64_t b, std::int64_t length, bool left) {
    const std::int64_t tokens = offsets[b + 1] - offsets[b];
    const std::int64_t padding = length - tokens;
    return {tokens, padding, left ? padding : 0, left ? 0 : tokens};
}

}  // namespace

Buffer<std::int64_t> pad(std::span<const std::int32_t> ids, std::span<const std::int64_t> offsets,
                         std::int64_t length, std::int64_t value, bool left) {
    check_offsets(offsets, static_cast<std::int64_t>(ids.size()));
    check_rows_fit(offsets, length);
    const PadKernels& use = kernels();
    auto out = allocate<std::int64_t>(row_count(offsets), length);  // (B, T)
    for (std::int64_t b = 0; b < row_count(offsets); ++b) {
        const Place at = place(offsets, b, length, left);
        std::int64_t* row = out.get() + b * length;
        use.widen(ids.data() + offsets[b], at.tokens, row + at.first_token);
        use.fill(value, at.padding, row + at.first_padding);
    }
    return out;
}

Buffer<std::int64_t> mask(std::span<const std::int64_t> offsets, std::int64_t length, bool left) {
    check_offsets(offsets);
    check_rows_fit(offsets, length);
    const PadKernels& use = kernels();
    auto out = allocate<std::int64_t>(row_count(offsets), length);  // (B, T)
    for (std::int64_t b = 0; b < row_count(offsets); ++b) {
        const Place at = place(offsets, b, length, left);
        std::int64_t* row = out.get() + b * length;
        use.fill(1, at.tokens, row + at.first_token);
        use.fill(0, at.padding, row + at.first_padding);
    }
    return out;
}

// The same at every level: the C library's memcpy already picks its instruction set.
Buffer<float> unpad(const Hidden& padded, std::span<const std::int64_t> offsets, bool left) {
    check_offsets(offsets);
    if (row_count(offsets) != padded.batch)
        refuse("offsets describe ", row_count(offsets), " rows, but padded has ", padded.batch);
    check_rows_fit(offsets, padded.tokens);
    const std::int64_t width = padded.width;
    auto out = allocate<float>(offsets.back(), width);  // (N, D)
    for (std::int64_t b = 0; b < padded.batch; ++b) {
        const Place at = place(offsets, b, padded.tokens, left);
        if (at.tokens == 0 || width == 0) continue;  // memcpy must not see null pointers
        std::memcpy(out.get() + offsets[b] * width, padded.row(b) + at.first_token * width,
                    at.tokens * width * sizeof(float));
    }
    return out;
}

}  // namespace headway
