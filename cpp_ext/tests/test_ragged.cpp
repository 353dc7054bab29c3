// Checks of ragged batches: what is accepted, what is refused, and in which words.
#include "headway/ragged.hpp"

#include <limits>

#include "check.hpp"

using Offsets = std::vector<std::int64_t>;

int main() {
    using headway::check_offsets, headway::check_rows_fit;
    check_offsets(Offsets{0}, 0);  // B = 0
    check_offsets(Offsets{0, 0, 3}, 3);
    check_rows_fit(Offsets{0, 0, 3}, 3);
    CHECK(headway::row_count(Offsets{0, 0, 3}) == 2);
    CHECK_REFUSES((check_offsets(Offsets{}), 0), "offsets is empty");
    CHECK_REFUSES((check_offsets(Offsets{2, 3}), 0), "must start at 0, not at 2");
    CHECK_REFUSES((check_offsets(Offsets{0, 5, 4}), 0),
                  "row 1 starts at 5 and ends before it, at 4");
    CHECK_REFUSES((check_offsets(Offsets{0, std::numeric_limits<std::int64_t>::min()}), 0),
                  "row 0");
    CHECK_REFUSES((check_offsets(Offsets{0, 5}, 6), 0), "end at 5, but there are 6 tokens");
    CHECK_REFUSES((check_rows_fit(Offsets{0, 1, 5}, 3), 0),
                  "row 1 has 4 tokens, more than length 3");
    CHECK_REFUSES((check_rows_fit(Offsets{0}, -1), 0), "length is -1");
    return failures != 0;
}
