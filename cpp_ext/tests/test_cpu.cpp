// CPU features: complete, and consistent with what the compiler's own detection says.
#include "headway/cpu.hpp"

#include "check.hpp"

int main() {
    const auto& features = headway::cpu_features();
    CHECK(features.size() == 13);
    CHECK(features.contains("amx_bf16"));
#ifdef HEADWAY_X86
    CHECK(features.at("avx2") == bool(__builtin_cpu_supports("avx2")));
    CHECK(features.at("fma") == bool(__builtin_cpu_supports("fma")));
    CHECK(features.at("avx512f") == bool(__builtin_cpu_supports("avx512f")));
    CHECK(features.at("avx512bw") == bool(__builtin_cpu_supports("avx512bw")));
    CHECK(features.at("avx512dq") == bool(__builtin_cpu_supports("avx512dq")));
    CHECK(features.at("avx512vl") == bool(__builtin_cpu_supports("avx512vl")));
    CHECK(features.at("avx512_vnni") == bool(__builtin_cpu_supports("avx512vnni")));
#endif
    return failures != 0;
}
