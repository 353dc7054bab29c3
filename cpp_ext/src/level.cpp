// Which instruction set the kernels use.
#include "headway/level.hpp"

#include <array>
#include <atomic>
#include <cstdlib>

#include "headway/cpu.hpp"
#include "refuse.hpp"

namespace headway {
namespace {

constexpr std::array<std::string_view, 3> names{"scalar", "avx2", "avx512"};

#ifdef HEADWAY_X86
bool available(Level level) {
    const auto& cpu = cpu_features();
    const bool avx2 = cpu.at("avx2") && cpu.at("fma");
    const bool avx512 =
        avx2 && cpu.at("avx512f") && cpu.at("avx512bw") && cpu.at("avx512dq") && cpu.at("avx512vl");
    if (level == Level::avx512) return avx512;
    return level == Level::scalar || avx2;
}
#else
bool available(Level level) { return level == Level::scalar; }
#endif

std::string listed() {
    std::string out;
    for (const std::string& name : levels()) out += (out.empty() ? "" : ", ") + name;
    return out;
}

Level parse(std::string_view source, std::string_view name) {
    for (std::size_t i = 0; i < names.size(); ++i)
        if (names[i] == name && available(Level(i))) return Level(i);
    refuse(source, " names \"", name, "\", but this build on this CPU has: ", listed());
}

Level first_level() {
    if (const char* asked = std::getenv("HEADWAY_SIMD"); asked && *asked)
        return parse("HEADWAY_SIMD", asked);
    return parse("levels", levels().back());
}

std::atomic<Level>& current() {
    static std::atomic<Level> level = first_level();
    return level;
}

}  // namespace

std::vector<std::string> levels() {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < names.size(); ++i)
        if (available(Level(i))) out.emplace_back(names[i]);
    return out;
}

Level level() { return current().load(std::memory_order_relaxed); }

std::string level_name() { return std::string(names[std::size_t(level())]); }

void set_level(std::string_view name) { current() = parse("set_level", name); }

}  // namespace headway
