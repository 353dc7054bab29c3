// The softmax, argmax and top-k kernels, written once over Vec and compiled once per instruction
// set.
#include "softmax_kernels.hpp"
#include "vec_math.hpp"

namespace headway::HEADWAY_LEVEL {
namespace {

Peak peak(const float* x, std::size_t n) {
    constexpr std::size_t chains = 4;  // independent, so that one need not wait for another
    const Vec lowest = Vec::all(-__builtin_inff());
    Vec most[chains] = {lowest, lowest, lowest, lowest};
    std::uint32_t nan = 0;
    std::size_t i = 0;
    for (; i + chains * Vec::width <= n; i += chains * Vec::width)
        for (std::size_t c = 0; c < chains; ++c) {
            const Vec v = Vec::load(x + i + c * Vec::width);
            most[c] = max(v, most[c]);
            nan |= is_nan(v);
        }
    for (; i < n; i += Vec::width) {
        const Vec v = load_up_to(x + i, n - i, lowest);
        most[0] = max(v, most[0]);
        nan |= is_nan(v);
    }
    return {max(max(most[0], most[1]), max(most[2], most[3])).greatest(), nan != 0};
}

float exp_block(const float* x, std::size_t n, Vec max, float* out) {
    const Vec lowest = Vec::all(-__builtin_inff());  // of which exp is 0
    Vec sum = Vec::all(0.0f);
    for (std::size_t i = 0; i < n; i += Vec::width) {
        const Vec e = exp(load_up_to(x + i, n - i, lowest) - max);
        store_up_to(e, out + i, n - i);
        sum = sum + e;
    }
    return sum.sum();
}

// Blocks bound the rounding error of adding up a whole vocabulary in float32.
double exp_row(const float* x, std::size_t n, float max, float* out) {
    constexpr std::size_t block = 512;
    double sum = 0.0;
    for (std::size_t i = 0; i < n; i += block)
        sum += exp_block(x + i, n - i < block ? n - i : block, Vec::all(max), out + i);
    return sum;
}

void scale(float* x, std::size_t n, float factor) {
    const Vec by = Vec::all(factor);
    for (std::size_t i = 0; i < n; i += Vec::width)
        store_up_to(load_up_to(x + i, n - i, by) * by, x + i, n - i);
}

std::size_t find_equal(const float* x, std::size_t from, std::size_t n, float value) {
    return find(x, from, n, value, [](Vec a, Vec b) { return equal(a, b); });
}

}  // namespace

const SoftmaxKernels softmax_kernels{peak, exp_row, scale, find_equal, find_greater};

}  // namespace headway::HEADWAY_LEVEL
