// Pooling at every level against double precision; every row alone equals itself in a batch.
#include "headway/pool.hpp"

#include <limits>

#include "check.hpp"

namespace {

using headway::Pooling;
using Lengths = std::vector<std::int64_t>;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// One text's tokens to one vector, in double precision.  // (n, d) -> (d)
std::vector<double> reference(const float* x, std::int64_t n, std::int64_t d, Pooling kind,
                              bool normalize) {
    std::vector<double> out(x, x + d);
    for (std::int64_t t = 1; t < n && kind != Pooling::cls; ++t)
        for (std::int64_t j = 0; j < d; ++j) {
            const double value = x[t * d + j];
            out[j] = kind == Pooling::mean ? out[j] + value : std::max(out[j], value);
        }
    double squares = 0.0;
    for (double& value : out) {
        if (kind == Pooling::mean) value /= static_cast<double>(n);
        squares += value * value;
    }
    for (double& value : out)
        if (normalize) value /= std::max(std::sqrt(squares), 1e-12);
    return out;
}

void check_row(const float* got, const float* x, std::int64_t n, std::int64_t d, Pooling kind,
               bool normalize) {
    const std::vector<double> want = reference(x, n, d, kind, normalize);
    const auto alone = headway::pool({x, 1, n, d}, Lengths{n}, kind, normalize);
    for (std::int64_t j = 0; j < d; ++j) {
        CHECK_CLOSE(got[j], want[j]);
        CHECK(got[j] == alone[j]);  // bit for bit
    }
}

void check_batch(std::int64_t batch, std::int64_t tokens, std::int64_t width, Pooling kind,
                 bool normalize) {
    const std::vector<float> hidden = random_floats(batch * tokens * width);  // (B, T, D)
    Lengths lengths(batch);
    for (auto& length : lengths) length = random_int(1, tokens);
    const auto padded =
        headway::pool({hidden.data(), batch, tokens, width}, lengths, kind, normalize);
    Lengths offsets{0};
    for (const auto length : lengths) offsets.push_back(offsets.back() + length);
    const auto ragged =
        headway::pool_ragged({hidden.data(), offsets.back(), width}, offsets, kind, normalize);
    for (std::int64_t b = 0; b < batch; ++b) {
        const float* row = hidden.data() + b * tokens * width;
        check_row(padded.get() + b * width, row, lengths[b], width, kind, normalize);
        const float* flat = hidden.data() + offsets[b] * width;
        check_row(ragged.get() + b * width, flat, lengths[b], width, kind, normalize);
    }
}

// Without normalising there is no sum across columns: every level gives the same bits.
void check_levels_agree() {
    const std::vector<float> hidden = random_floats(2 * 31 * 203);  // (B, T, D)
    for (const Pooling kind : {Pooling::mean, Pooling::max, Pooling::cls}) {
        headway::set_level("scalar");
        const auto want = headway::pool({hidden.data(), 2, 31, 203}, Lengths{31, 7}, kind, false);
        at_every_level([&] {
            const auto got =
                headway::pool({hidden.data(), 2, 31, 203}, Lengths{31, 7}, kind, false);
            for (int i = 0; i < 2 * 203; ++i) CHECK(got[i] == want[i]);
        });
    }
}

void check_special_values() {
    std::vector<float> hidden(3 * 20, 1.0f);  // (T, D)
    hidden[0] = hidden[20 + 7] = hidden[40 + 19] = nan;
    for (const Pooling kind : {Pooling::mean, Pooling::max}) {
        const auto out = headway::pool({hidden.data(), 1, 3, 20}, Lengths{3}, kind, false);
        for (int j = 0; j < 20; ++j) CHECK(std::isnan(out[j]) == (j == 0 || j == 7 || j == 19));
    }
    const std::vector<float> zeros(20);
    const auto out = headway::pool({zeros.data(), 1, 1, 20}, Lengths{1}, Pooling::mean, true);
    for (int j = 0; j < 20; ++j) CHECK(out[j] == 0.0f);
}

void check_errors() {
    const std::vector<float> x(24);
    const auto pool = [&](Lengths lengths) {
        headway::pool({x.data(), 2, 3, 4}, lengths, Pooling::mean, false);
    };
    CHECK_REFUSES((pool({1}), 0), "1 lengths, but hidden has 2 rows");
    CHECK_REFUSES((pool({1, 0}), 0), "row 1 has length 0: it must be 1 to 3");
    CHECK_REFUSES((pool({4, 1}), 0), "row 0 has length 4");
    CHECK_REFUSES(headway::pool_ragged({x.data(), 6, 4}, Lengths{0, 3, 3, 6}, Pooling::max, true),
                  "row 1 has no tokens");
    CHECK_REFUSES(headway::pool_ragged({x.data(), 6, 4}, Lengths{0, 5}, Pooling::max, true), "6");
    CHECK_REFUSES(headway::pooling_named("median"), "kind is \"median\"");
    CHECK(headway::pooling_named("cls") == Pooling::cls);
}

}  // namespace

int main() {
    at_every_level([] {
        for (const Pooling kind : {Pooling::mean, Pooling::max, Pooling::cls})
            for (const bool normalize : {false, true}) {
                check_batch(0, 3, 4, kind, normalize);
                check_batch(3, 2, 0, kind, normalize);
                for (std::int64_t width : {1, 7, 8, 15, 16, 17, 64, 127, 128, 129, 300, 768})
                    check_batch(3, random_int(1, 40), width, kind, normalize);
                check_batch(4, 1, 33, kind, normalize);
            }
        check_special_values();
        check_errors();
    });
    check_levels_agree();
    return failures != 0;
}
