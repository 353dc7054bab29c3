// From a kernel's table of functions per instruction set to the table in use.
#pragma once

#include <array>

#include "headway/level.hpp"

#ifdef HEADWAY_X86
#define HEADWAY_EVERY_LEVEL(kernels) \
    {&::headway::scalar::kernels, &::headway::avx2::kernels, &::headway::avx512::kernels}
#else
#define HEADWAY_EVERY_LEVEL(kernels) {&::headway::scalar::kernels, nullptr, nullptr}
#endif

namespace headway {

template <class Kernels>
const Kernels& in_use(const std::array<const Kernels*, 3>& every_level) {
    return *every_level[static_cast<std::size_t>(level())];
}

}  // namespace headway
