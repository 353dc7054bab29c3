// The padding kernels: loops plain enough for the compiler to vectorise for each instruction set.
#include "pad_kernels.hpp"

namespace headway::HEADWAY_LEVEL {
namespace {

void widen(const std::int32_t* ids, std::size_t n, std::int64_t* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = ids[i];
}

void fill(std::int64_t value, std::size_t n, std::int64_t* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = value;
}

}  // namespace

const PadKernels pad_kernels{widen, fill};

}  // namespace headway::HEADWAY_LEVEL
