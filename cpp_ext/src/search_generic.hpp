// The scans over rows of logits, written once over Vec and compiled once per instruction set.
#include "search_kernels.hpp"
#include "vec_math.hpp"

namespace headway::HEADWAY_LEVEL {
namespace {

constexpr std::size_t chains = 4;  // independent, so that one need not wait for another
constexpr std::size_t stride = chains * Vec::width;

float greatest(const float* x, std::size_t n) {
    const Vec lowest = Vec::all(-__builtin_inff());
    Vec most[chains] = {lowest, lowest, lowest, lowest};
    std::size_t i = 0;
    for (; i + stride <= n; i += stride)
        for (std::size_t c = 0; c < chains; ++c)
            most[c] = max(Vec::load(x + i + c * Vec::width), most[c]);
    for (; i < n; i += Vec::width) most[0] = max(load_up_to(x + i, n - i, lowest), most[0]);
    return max(max(most[0], most[1]), max(most[2], most[3])).greatest();
}

// The sum of exp(x - subtracted), but of less than 2^-126 it takes that; NaN gives NaN.
float sum_of_exp(const float* x, std::size_t n, float subtracted) {
    const Vec by = Vec::all(subtracted), least = least_exponent();
    const auto term = [&](Vec v) { return exp_within(max(least, v - by)); };
    Vec sums[chains] = {Vec::all(0.0f), Vec::all(0.0f), Vec::all(0.0f), Vec::all(0.0f)};
    std::size_t i = 0;
    for (; i + stride <= n; i += stride)
        for (std::size_t c = 0; c < chains; ++c)
            sums[c] = sums[c] + term(Vec::load(x + i + c * Vec::width));
    const Vec lowest = Vec::all(-__builtin_inff());
    for (; i < n; i += Vec::width) sums[0] = sums[0] + term(load_up_to(x + i, n - i, lowest));
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
}

// A block is read from memory once, for its peak, and then again while it is in the cache. What was
// summed up before a greater maximum came is scaled to that one. Blocks bound the rounding error.
RowSum sum(const float* x, std::size_t n, float* peaks) {
    const float lowest = -__builtin_inff();
    RowSum row{lowest, 0.0, false};
    for (std::size_t i = 0; i < n; i += search_block) {
        const std::size_t size = n - i < search_block ? n - i : search_block;
        const float most = *peaks++ = greatest(x + i, size);
        if (most > row.max) {
            if (row.sum > 0.0) row.sum *= __builtin_exp(double(row.max) - double(most));
            row.max = most;
        }
        const float part = sum_of_exp(x + i, size, row.max > lowest ? row.max : 0.0f);
        if (row.max > lowest) row.sum += part;
        row.nan |= part != part;
    }
    return row;
}

void keep(const float* x, const std::uint32_t* allowed, std::size_t n, float* out) {
    constexpr std::size_t bits = 32;
    const auto kept = [&](std::size_t i, std::size_t bit) {
        return allowed[i / bits] >> bit & 1 ? x[i + bit] : -__builtin_inff();
    };
    std::size_t i = 0;
    for (; i + bits <= n; i += bits)
        for (std::size_t bit = 0; bit < bits; ++bit) out[i + bit] = kept(i, bit);
    for (std::size_t bit = 0; i + bit < n; ++bit) out[i + bit] = kept(i, bit);
}

}  // namespace

const SearchKernels search_kernels{sum, find_greater, keep};

}  // namespace headway::HEADWAY_LEVEL
