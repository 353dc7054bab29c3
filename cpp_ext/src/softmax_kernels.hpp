// What each instruction set provides for softmax, argmax and top-k.
#pragma once

#include <cstddef>

namespace headway {

struct Peak {
    float max;  // -inf for no entries; meaningless when there is NaN
    bool nan;
};

struct SoftmaxKernels {
    Peak (*peak)(const float* x, std::size_t n);
    // out = exp(x - max), returns its sum; x <= max everywhere.  // (n) -> (n)
    double (*exp_row)(const float* x, std::size_t n, float max, float* out);
    void (*scale)(float* x, std::size_t n, float factor);  // (n), in place
    // The first index from `from` on whose entry is equal to / greater than the value, else n.
    std::size_t (*find_equal)(const float* x, std::size_t from, std::size_t n, float value);
    std::size_t (*find_greater)(const float* x, std::size_t from, std::size_t n, float value);
};

namespace scalar {
extern const SoftmaxKernels softmax_kernels;
}
namespace avx2 {
extern const SoftmaxKernels softmax_kernels;
}
namespace avx512 {
extern const SoftmaxKernels softmax_kernels;
}

}  // namespace headway
