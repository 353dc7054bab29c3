// Checks that count their failures, generated input, and a loop over the instruction sets.
#pragma once

#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "headway/level.hpp"

inline int failures = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
    if (holds) return;
    ++failures;
    std::cerr << file << ":" << line << ": at level " << headway::level_name() << ": " << what
              << "\n";
}

inline bool close(double got, double want, double rtol, double atol) {
    return std::abs(got - want) <= atol + rtol * std::abs(want);
}

template <class Call>
bool refuses(Call call, const std::string& part) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return std::string(error.what()).find(part) != std::string::npos;
    }
    return false;
}

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
#define CHECK_CLOSE(got, want) CHECK(close((got), (want), 1e-5, 1e-6))  // float32
#define CHECK_REFUSES(call, part) CHECK(refuses([&] { (void)(call); }, (part)))

template <class Test>
void at_every_level(Test test) {
    for (const std::string& name : headway::levels()) {
        headway::set_level(name);
        test();
    }
}

inline std::mt19937 generator{20240229};

inline std::int64_t random_int(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(generator);
}

inline std::vector<float> random_floats(std::int64_t n, float deviation = 1.0f) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> out(n);
    for (float& x : out) x = normal(generator);
    return out;
}

// Offsets of `rows` rows of `least` to `most` tokens.
inline std::vector<std::int64_t> random_offsets(std::int64_t rows, std::int64_t least,
                                                std::int64_t most) {
    std::vector<std::int64_t> out{0};
    for (std::int64_t b = 0; b < rows; ++b) out.push_back(out.back() + random_int(least, most));
    return out;
}
