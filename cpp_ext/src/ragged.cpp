// Checks of ragged batches; every error names the row and the numbers.
#include "headway/ragged.hpp"

#include "refuse.hpp"

namespace headway {

void check_offsets(std::span<const std::int64_t> offsets) {
    if (offsets.empty()) refuse("offsets is empty: it must hold one number more than rows");
    if (offsets[0] != 0) refuse("offsets must start at 0, not at ", offsets[0]);
    for (std::size_t b = 0; b + 1 < offsets.size(); ++b)
        if (offsets[b + 1] < offsets[b])
            refuse("row ", b, " starts at ", offsets[b], " and ends before it, at ",
                   offsets[b + 1]);
}

void check_offsets(std::span<const std::int64_t> offsets, std::int64_t tokens) {
    check_offsets(offsets);
    if (offsets.back() != tokens)
        refuse("offsets end at ", offsets.back(), ", but there are ", tokens, " tokens");
}

void check_rows_fit(std::span<const std::int64_t> offsets, std::int64_t length) {
    if (length < 0) refuse("length is ", length, ": it must not be negative");
    for (std::size_t b = 0; b + 1 < offsets.size(); ++b)
        if (offsets[b + 1] - offsets[b] > length)
            refuse("row ", b, " has ", offsets[b + 1] - offsets[b], " tokens, more than length ",
                   length);
}

}  // namespace headway
