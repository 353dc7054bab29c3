// The softmax, argmax and top-k kernels, written once over Vec and compiled once per instruction
// set.
#include "softmax_kernels.hpp"

namespace headway::HEADWAY_LEVEL {
namespace {

// A whole vector, or as much of one as is left and then fill.
Vec load_up_to(const float* p, std::size_t left, Vec fill) {
    return left >= Vec::width ? Vec::load(p) : Vec::load(p, left, fill);
}

void store_up_to(Vec v, float* p, std::size_t left) {
    if (left >= Vec::width)
        v.store(p);
    else
        v.store(p, left);
}

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

// exp(x) for x <= 0, within 2 ulp; 0 where x is less than ln(2^-126), the smallest normal result.
// Source: expf of Stephen L. Moshier's Cephes library. x = n ln(2) + r with |r| <= ln(2)/2, where
// ln(2) is split in two so that n times the first part is exact; then exp(x) = 2^n exp(r), and
// exp(r) = 1 + r + r^2 P(r).
Vec exp(Vec x) {
    const Vec lowest = Vec::all(-87.33654f);
    const Vec within = max(x, lowest);
    const Vec n = round(within * Vec::all(1.44269504f));
    Vec r = mul_add(n, Vec::all(-0.693359375f), within);
    r = mul_add(n, Vec::all(2.12194440e-4f), r);
    Vec p = Vec::all(1.9875691500e-4f);
    p = mul_add(p, r, Vec::all(1.3981999507e-3f));
    p = mul_add(p, r, Vec::all(8.3334519073e-3f));
    p = mul_add(p, r, Vec::all(4.1665795894e-2f));
    p = mul_add(p, r, Vec::all(1.6666665459e-1f));
    p = mul_add(p, r, Vec::all(5.0000001201e-1f));
    const Vec exp_r = mul_add(p, r * r, r) + Vec::all(1.0f);
    return keep_from(x, lowest, exp_r * power_of_2(n));
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

// The first index from `from` on where test(entry, value) holds, else n.
template <class Test>
std::size_t find(const float* x, std::size_t from, std::size_t n, float value, Test test) {
    const Vec wanted = Vec::all(value), never = Vec::all(__builtin_nanf(""));
    for (std::size_t i = from; i < n; i += Vec::width)
        if (const std::uint32_t hits = test(load_up_to(x + i, n - i, never), wanted))
            return i + static_cast<std::size_t>(__builtin_ctz(hits));
    return n;
}

std::size_t find_equal(const float* x, std::size_t from, std::size_t n, float value) {
    return find(x, from, n, value, [](Vec a, Vec b) { return equal(a, b); });
}

std::size_t find_greater(const float* x, std::size_t from, std::size_t n, float value) {
    return find(x, from, n, value, [](Vec a, Vec b) { return greater(a, b); });
}

}  // namespace

const SoftmaxKernels softmax_kernels{peak, exp_row, scale, find_equal, find_greater};

}  // namespace headway::HEADWAY_LEVEL
