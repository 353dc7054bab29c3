// What each instruction set provides for the search.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headway {

inline constexpr std::size_t search_block = 512;

struct RowSum {
    float max;   // -inf for no entries
    double sum;  // of exp(x - max); meaningless when max is infinite
    bool nan;    // whether there is any; also where max is +inf
};

struct SearchKernels {
    // In one pass over the row. peaks: the greatest entry of each block  // (n / block, rounded up)
    RowSum (*sum)(const float* x, std::size_t n, float* peaks);
    // The first index from `from` on whose entry is greater than the value, else n.
    std::size_t (*find_greater)(const float* x, std::size_t from, std::size_t n, float value);
    // Copies the row, with -inf where the bit is not set.  // allowed (n / 32, rounded up)
    void (*keep)(const float* x, const std::uint32_t* allowed, std::size_t n, float* out);
};

namespace scalar {
extern const SearchKernels search_kernels;
}
namespace avx2 {
extern const SearchKernels search_kernels;
}
namespace avx512 {
extern const SearchKernels search_kernels;
}

}  // namespace headway
