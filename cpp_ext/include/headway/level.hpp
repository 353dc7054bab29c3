// The instruction set in use: chosen from the CPU, or by HEADWAY_SIMD, or by set_level.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace headway {

enum class Level { scalar, avx2, avx512 };  // avx512: F, BW, DQ and VL

// The levels this build and this CPU both have, slowest first; "scalar" is always there.
std::vector<std::string> levels();

// The level in use. At first the fastest, or what the environment variable HEADWAY_SIMD names.
// Throws std::invalid_argument when HEADWAY_SIMD names a level that levels() lacks.
Level level();
std::string level_name();

// Process-wide. Throws std::invalid_argument for a name that levels() lacks.
void set_level(std::string_view name);

}  // namespace headway
