// What each instruction set provides for padding.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headway {

struct PadKernels {
    void (*widen)(const std::int32_t* ids, std::size_t n, std::int64_t* out);  // (n) -> (n)
    void (*fill)(std::int64_t value, std::size_t n, std::int64_t* out);        // -> (n)
};

namespace scalar {
extern const PadKernels pad_kernels;
}
namespace avx2 {
extern const PadKernels pad_kernels;
}
namespace avx512 {
extern const PadKernels pad_kernels;
}

}  // namespace headway
