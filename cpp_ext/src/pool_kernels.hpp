// What each instruction set provides for pooling.
#pragma once

#include <cstddef>

namespace headway {

struct PoolKernels {
    void (*mean)(const float* x, std::size_t n, std::size_t d, float* out);  // (n, d) -> (d)
    void (*max)(const float* x, std::size_t n, std::size_t d, float* out);   // (n, d) -> (d)
    void (*normalize)(float* x, std::size_t d);                              // (d), in place
};

namespace scalar {
extern const PoolKernels pool_kernels;
}
namespace avx2 {
extern const PoolKernels pool_kernels;
}
namespace avx512 {
extern const PoolKernels pool_kernels;
}

}  // namespace headway
