// Padding at every level against a plain loop; padding and unpadding undo each other.
#include "headway/pad.hpp"

#include <limits>
#include <new>

#include "check.hpp"

namespace {

using Offsets = std::vector<std::int64_t>;

void check_pad(std::int64_t rows, std::int64_t most, std::int64_t length, bool left) {
    const Offsets offsets = random_offsets(rows, 0, most);
    std::vector<std::int32_t> ids(offsets.back());
    for (auto& id : ids) id = static_cast<std::int32_t>(random_int(INT32_MIN, INT32_MAX));
    const std::int64_t value = random_int(INT64_MIN, INT64_MAX);
    const auto padded = headway::pad(ids, offsets, length, value, left);
    const auto mask = headway::mask(offsets, length, left);
    for (std::int64_t b = 0; b < rows; ++b) {
        const std::int64_t tokens = offsets[b + 1] - offsets[b];
        for (std::int64_t t = 0; t < length; ++t) {
            const std::int64_t token = left ? t - (length - tokens) : t;
            const bool inside = token >= 0 && token < tokens;
            CHECK(mask[b * length + t] == (inside ? 1 : 0));
            CHECK(padded[b * length + t] == (inside ? ids[offsets[b] + token] : value));
        }
    }
}

void check_unpad(std::int64_t rows, std::int64_t length, std::int64_t width, bool left) {
    const Offsets offsets = random_offsets(rows, 0, length);
    const std::vector<float> padded = random_floats(rows * length * width);  // (B, T, D)
    const auto flat = headway::unpad({padded.data(), rows, length, width}, offsets, left);
    for (std::int64_t b = 0; b < rows; ++b) {
        const std::int64_t tokens = offsets[b + 1] - offsets[b], start = left ? length - tokens : 0;
        for (std::int64_t i = 0; i < tokens * width; ++i)
            CHECK(flat[offsets[b] * width + i] == padded[(b * length + start) * width + i]);
    }
}

void check_errors() {
    const std::vector<std::int32_t> ids{1, 2, 3};
    const std::vector<float> hidden(6);
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    CHECK_REFUSES(headway::pad(ids, Offsets{0, 2}, 4, 0, false),
                  "end at 2, but there are 3 tokens");
    CHECK_REFUSES(headway::pad(ids, Offsets{0, 0, 3}, 2, 0, false), "row 1 has 3 tokens");
    CHECK_REFUSES(headway::mask(Offsets{1}, 2, false), "must start at 0");
    CHECK_REFUSES(headway::unpad({hidden.data(), 1, 3, 2}, Offsets{0, 4}, false), "row 0 has 4");
    CHECK_REFUSES(headway::unpad({hidden.data(), 1, 3, 2}, Offsets{0, 1, 2}, false), "2 rows");
    bool out_of_memory = false;
    try {
        headway::mask(Offsets{0, 1, 2}, most, false);
    } catch (const std::bad_alloc&) {
        out_of_memory = true;
    }
    CHECK(out_of_memory);
}

}  // namespace

int main() {
    at_every_level([] {
        for (const bool left : {false, true}) {
            check_pad(0, 0, 5, left);  // B = 0
            check_pad(3, 0, 0, left);  // N = 0, T = 0
            check_pad(4, 1, 1, left);
            for (int i = 0; i < 50; ++i) check_pad(7, 67, random_int(67, 90), left);
            check_unpad(0, 3, 4, left);
            check_unpad(3, 2, 0, left);
            for (int i = 0; i < 20; ++i) check_unpad(5, random_int(0, 20), random_int(1, 40), left);
        }
        check_errors();
    });
    return failures != 0;
}
