// Softmax, argmax and top-k: checks, rows, and the choice of instruction set.
#include "headway/softmax.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "dispatch.hpp"
#include "refuse.hpp"
#include "softmax_kernels.hpp"

namespace headway {
namespace {

const SoftmaxKernels& kernels() {
    return in_use<SoftmaxKernels>(HEADWAY_EVERY_LEVEL(softmax_kernels));
}

constexpr std::int64_t most_columns = std::numeric_limits<std::int32_t>::max();  // int32 indices
constexpr float infinity = std::numeric_limits<float>::infinity();

void check_columns(const Matrix& x) {
    if (x.columns < 1 || x.columns > most_columns)
        refuse("rows have ", x.columns, " entries: it must be 1 to ", most_columns);
}

float checked_peak(const SoftmaxKernels& use, const Matrix& x, std::int64_t b) {
    const Peak peak = use.peak(x.row(b), x.columns);
    if (peak.nan) refuse("row ", b, " of ", x.rows, " holds NaN");
    return peak.max;
}

struct Entry {
    float value;
    std::int32_t index;
};

bool better(const Entry& a, const Entry& b) {
    return a.value > b.value || (a.value == b.value && a.index < b.index);
}

// Into best, the size of which is k. A heap with the worst of the best on top; scanning upwards,
// only a strictly greater entry gets in, so that the lower index wins among equals.
void select(const SoftmaxKernels& use, const float* x, std::size_t n, std::vector<Entry>& best) {
    const std::size_t k = best.size();
    for (std::size_t i = 0; i < k; ++i) best[i] = {x[i], static_cast<std::int32_t>(i)};
    std::make_heap(best.begin(), best.end(), better);
    std::size_t i = k;
    while ((i = use.find_greater(x, i, n, best.front().value)) < n) {
        std::pop_heap(best.begin(), best.end(), better);
        best.back() = {x[i], static_cast<std::int32_t>(i)};
        std::push_heap(best.begin(), best.end(), better);
        ++i;
    }
    std::sort_heap(best.begin(), best.end(), better);
}

}  // namespace

Buffer<float> softmax(const Matrix& logits) {
    check_columns(logits);
    const SoftmaxKernels& use = kernels();
    auto out = allocate<float>(logits.rows, logits.columns);  // (B, C)
    for (std::int64_t b = 0; b < logits.rows; ++b) {
        const float max = checked_peak(use, logits, b);
        if (max == infinity) refuse("row ", b, " of ", logits.rows, " holds +inf");
        if (max == -infinity) refuse("row ", b, " of ", logits.rows, " holds nothing but -inf");
        float* row = out.get() + b * logits.columns;
        const double sum = use.exp_row(logits.row(b), logits.columns, max, row);
        use.scale(row, logits.columns, static_cast<float>(1.0 / sum));
    }
    return out;
}

Buffer<std::int32_t> argmax(const Matrix& logits) {
    check_columns(logits);
    const SoftmaxKernels& use = kernels();
    auto out = allocate<std::int32_t>(logits.rows, 1);  // (B)
    for (std::int64_t b = 0; b < logits.rows; ++b) {
        const float max = checked_peak(use, logits, b);
        const std::size_t first = use.find_equal(logits.row(b), 0, logits.columns, max);
        out[b] = static_cast<std::int32_t>(first);
    }
    return out;
}

TopK top_k(const Matrix& values, std::int64_t k) {
    check_columns(values);
    if (k < 1 || k > values.columns)
        refuse("k is ", k, ": it must be 1 to the row's ", values.columns, " entries");
    const SoftmaxKernels& use = kernels();
    TopK out{allocate<float>(values.rows, k), allocate<std::int32_t>(values.rows, k)};
    std::vector<Entry> best(k);
    for (std::int64_t b = 0; b < values.rows; ++b) {
        checked_peak(use, values, b);
        select(use, values.row(b), values.columns, best);
        for (std::int64_t i = 0; i < k; ++i) {
            out.values[b * k + i] = best[i].value;
            out.indices[b * k + i] = best[i].index;
        }
    }
    return out;
}

}  // namespace headway
