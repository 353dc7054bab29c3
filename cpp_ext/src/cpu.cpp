// CPU features by cpuid, and register state saved by the operating system by xgetbv.
#include "headway/cpu.hpp"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace headway {
namespace {

struct Leaf {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

#if defined(__x86_64__)
// Zeros when the CPU has no such leaf.
Leaf cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
    Leaf out;
    __get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx);
    return out;
}

// XCR0: which registers the operating system saves. Only legal when cpuid reports OSXSAVE.
std::uint32_t xcr0() {
    std::uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
#else
Leaf cpuid(std::uint32_t, std::uint32_t) { return {}; }
std::uint32_t xcr0() { return 0; }
#endif

bool bit(std::uint32_t word, int position) { return (word >> position & 1) != 0; }

std::map<std::string, bool> read_features() {
    const Leaf base = cpuid(1, 0), extended = cpuid(7, 0);
    const Leaf more = extended.eax >= 1 ? cpuid(7, 1) : Leaf{};
    const std::uint32_t saved = bit(base.ecx, 27) ? xcr0() : 0;
    const bool ymm = (saved & 0x6) == 0x6 && bit(base.ecx, 28);  // SSE and AVX state, AVX itself
    const bool zmm = ymm && (saved & 0xe0) == 0xe0;              // mask and 512-bit state
    const bool tiles = (saved & 0x60000) == 0x60000;             // tile configuration and data
    return {
        {"avx2", ymm && bit(extended.ebx, 5)},        {"fma", ymm && bit(base.ecx, 12)},
        {"f16c", ymm && bit(base.ecx, 29)},           {"avx512f", zmm && bit(extended.ebx, 16)},
        {"avx512bw", zmm && bit(extended.ebx, 30)},   {"avx512dq", zmm && bit(extended.ebx, 17)},
        {"avx512vl", zmm && bit(extended.ebx, 31)},   {"avx512_vnni", zmm && bit(extended.ecx, 11)},
        {"avx_vnni", ymm && bit(more.eax, 4)},        {"avx512_bf16", zmm && bit(more.eax, 5)},
        {"amx_tile", tiles && bit(extended.edx, 24)}, {"amx_int8", tiles && bit(extended.edx, 25)},
        {"amx_bf16", tiles && bit(extended.edx, 22)},
    };
}

}  // namespace

const std::map<std::string, bool>& cpu_features() {
    static const std::map<std::string, bool> features = read_features();
    return features;
}

}  // namespace headway
