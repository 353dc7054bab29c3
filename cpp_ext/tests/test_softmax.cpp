// Softmax, argmax and top-k at every level against double precision and the standard library.
#include "headway/softmax.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "dispatch.hpp"
#include "softmax_kernels.hpp"

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// How many float32 steps apart got and the true value are.
double ulps(float got, double want) {
    const float nearest = static_cast<float>(want);
    const double step = std::nextafter(nearest, infinity) - nearest;
    return std::abs(got - want) / step;
}

// Every 499th float32 from -0 down to where exp leaves the normal numbers, and that one itself.
void check_exp() {
    using headway::SoftmaxKernels;
    const auto& use = headway::in_use<SoftmaxKernels>(HEADWAY_EVERY_LEVEL(softmax_kernels));
    const std::uint32_t first = std::bit_cast<std::uint32_t>(-0.0f);
    const std::uint32_t last = std::bit_cast<std::uint32_t>(-87.33654f);
    std::vector<float> x{std::bit_cast<float>(last)};
    for (std::uint32_t bits = first; bits <= last; bits += 499)
        x.push_back(std::bit_cast<float>(bits));
    std::vector<float> got(x.size());
    use.exp_row(x.data(), x.size(), 0.0f, got.data());
    double worst = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i)
        worst = std::max(worst, ulps(got[i], std::exp(static_cast<double>(x[i]))));
    CHECK(worst < 2.0);
}

void check_softmax(std::int64_t rows, std::int64_t columns, float deviation) {
    std::vector<float> x = random_floats(rows * columns, deviation);  // (B, C)
    const bool masked = rows > 0 && columns > 1;
    if (masked) x[0] = -infinity;
    const auto got = headway::softmax({x.data(), rows, columns});
    for (std::int64_t b = 0; b < rows; ++b) {
        const float* row = x.data() + b * columns;
        const double max = *std::max_element(row, row + columns);
        double sum = 0.0;
        for (std::int64_t i = 0; i < columns; ++i) sum += std::exp(row[i] - max);
        for (std::int64_t i = 0; i < columns; ++i)
            CHECK_CLOSE(got[b * columns + i], std::exp(row[i] - max) / sum);
    }
    CHECK(!masked || got[0] == 0.0f);
}

// Differences too large for float32 still give a certain choice.
void check_far_apart() {
    const std::vector<float> x{-3e38f, 3e38f, -infinity};
    const auto got = headway::softmax({x.data(), 1, 3});
    CHECK(got[0] == 0.0f && got[1] == 1.0f && got[2] == 0.0f);
}

// A few values only, so that there are ties.
std::vector<float> with_ties(std::int64_t n) {
    std::vector<float> out(n);
    for (float& x : out) x = static_cast<float>(random_int(-9, 9));
    for (float& x : out)
        if (x == -9.0f) x = -infinity;
    return out;
}

void check_choices(std::int64_t rows, std::int64_t columns, std::int64_t k, bool ties) {
    const std::vector<float> x =
        ties ? with_ties(rows * columns) : random_floats(rows * columns);  // (B, C)
    const auto best = headway::argmax({x.data(), rows, columns});
    const auto top = headway::top_k({x.data(), rows, columns}, k);
    for (std::int64_t b = 0; b < rows; ++b) {
        const float* row = x.data() + b * columns;
        std::vector<std::int32_t> order(columns);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return row[i] > row[j]; });
        CHECK(best[b] == order[0]);
        for (std::int64_t i = 0; i < k; ++i) {
            CHECK(top.indices[b * k + i] == order[i]);
            CHECK(top.values[b * k + i] == row[order[i]]);
        }
    }
}

void check_errors() {
    for (std::int64_t columns : {1, 5, 16, 40}) {
        std::vector<float> x(2 * columns, 0.5f);
        const headway::Matrix matrix{x.data(), 2, columns};
        CHECK_REFUSES(headway::top_k(matrix, 0), "k is 0: it must be 1 to");
        CHECK_REFUSES(headway::top_k(matrix, columns + 1), "k is ");
        x.back() = nan;
        CHECK_REFUSES(headway::softmax(matrix), "row 1 of 2 holds NaN");
        CHECK_REFUSES(headway::argmax(matrix), "row 1 of 2 holds NaN");
        CHECK_REFUSES(headway::top_k(matrix, 1), "row 1 of 2 holds NaN");
        x.back() = infinity;
        CHECK_REFUSES(headway::softmax(matrix), "row 1 of 2 holds +inf");
        CHECK(headway::argmax(matrix)[1] == columns - 1);
        std::fill(x.begin() + columns, x.end(), -infinity);
        CHECK_REFUSES(headway::softmax(matrix), "row 1 of 2 holds nothing but -inf");
        CHECK(headway::argmax(matrix)[1] == 0);
    }
    CHECK_REFUSES(headway::softmax({nullptr, 2, 0}), "rows have 0 entries");
}

}  // namespace

int main() {
    at_every_level([] {
        check_exp();
        for (std::int64_t columns : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100, 513, 30522}) {
            for (float deviation : {1.0f, 30.0f, 3e37f}) check_softmax(3, columns, deviation);
            for (const bool ties : {false, true})
                for (std::int64_t k : {std::int64_t{1}, (columns + 2) / 3, columns})
                    check_choices(3, columns, k, ties);
        }
        check_softmax(0, 4, 1.0f);
        check_far_apart();
        check_choices(0, 4, 2, true);
        check_errors();
    });
    return failures != 0;
}
