// The pooling kernels, written once over Vec and compiled once per instruction set.
#include "pool_kernels.hpp"

namespace headway::HEADWAY_LEVEL {
namespace {

struct Add {
    static Vec combine(Vec a, Vec b) { return a + b; }
};
struct Greater {
    static Vec combine(Vec a, Vec b) { return max_or_nan(a, b); }
};

// Columns from..from+blocks*width over all tokens, in token order, held in registers.
template <class Op, std::size_t blocks>
void reduce_columns(const float* x, std::size_t n, std::size_t d, float* out) {
    Vec held[blocks];
    for (std::size_t c = 0; c < blocks; ++c) held[c] = Vec::load(x + c * Vec::width);
    for (std::size_t t = 1; t < n; ++t)
        for (std::size_t c = 0; c < blocks; ++c)
            held[c] = Op::combine(held[c], Vec::load(x + t * d + c * Vec::width));
    for (std::size_t c = 0; c < blocks; ++c) held[c].store(out + c * Vec::width);
}

// The last count < width columns.
template <class Op>
void reduce_rest(const float* x, std::size_t n, std::size_t d, std::size_t count, float* out) {
    const Vec zero = Vec::all(0.0f);
    Vec held = Vec::load(x, count, zero);
    for (std::size_t t = 1; t < n; ++t) held = Op::combine(held, Vec::load(x + t * d, count, zero));
    held.store(out, count);
}

template <class Op>
void reduce(const float* x, std::size_t n, std::size_t d, float* out) {  // (n, d) -> (d)
    constexpr std::size_t many = 8;
    std::size_t j = 0;
    for (; j + many * Vec::width <= d; j += many * Vec::width)
        reduce_columns<Op, many>(x + j, n, d, out + j);
    for (; j + Vec::width <= d; j += Vec::width) reduce_columns<Op, 1>(x + j, n, d, out + j);
    if (j < d) reduce_rest<Op>(x + j, n, d, d - j, out + j);
}

void divide(float* x, std::size_t d, float by) {  // (d), in place
    const Vec divisor = Vec::all(by);
    std::size_t j = 0;
    for (; j + Vec::width <= d; j += Vec::width) (Vec::load(x + j) / divisor).store(x + j);
    if (j < d) (Vec::load(x + j, d - j, divisor) / divisor).store(x + j, d - j);
}

void mean(const float* x, std::size_t n, std::size_t d, float* out) {
    reduce<Add>(x, n, d, out);
    divide(out, d, static_cast<float>(n));
}

void max(const float* x, std::size_t n, std::size_t d, float* out) {
    reduce<Greater>(x, n, d, out);
}

float sum_of_squares(const float* x, std::size_t d) {
    Vec sum = Vec::all(0.0f);
    std::size_t j = 0;
    for (; j + Vec::width <= d; j += Vec::width) {
        const Vec v = Vec::load(x + j);
        sum = mul_add(v, v, sum);
    }
    if (j < d) {
        const Vec v = Vec::load(x + j, d - j, Vec::all(0.0f));
        sum = mul_add(v, v, sum);
    }
    return sum.sum();
}

void normalize(float* x, std::size_t d) {
    const float norm = __builtin_sqrtf(sum_of_squares(x, d));
    divide(x, d, norm < 1e-12f ? 1e-12f : norm);  // NaN stays NaN
}

}  // namespace

const PoolKernels pool_kernels{mean, max, normalize};

}  // namespace headway::HEADWAY_LEVEL
