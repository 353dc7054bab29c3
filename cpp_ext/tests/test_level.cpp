// Levels: listed, chosen, refused. Runs with HEADWAY_SIMD set by the test itself.
#include "headway/level.hpp"

#include <cstdlib>

#include "check.hpp"

int main() {
    setenv("HEADWAY_SIMD", "mmx", 1);  // a failed first choice is tried again at the next call
    const bool refused = refuses([] { headway::level(); }, "HEADWAY_SIMD names \"mmx\"");
    setenv("HEADWAY_SIMD", "scalar", 1);
    CHECK(headway::level_name() == "scalar");
    CHECK(refused);

    CHECK(headway::levels().front() == "scalar");
    CHECK_REFUSES((headway::set_level("neon"), 0), "set_level names \"neon\"");
    CHECK_REFUSES((headway::set_level(""), 0), "scalar");
    CHECK(headway::level() == headway::Level::scalar);
    for (const std::string& name : headway::levels()) {
        headway::set_level(name);
        CHECK(headway::level_name() == name);
    }
    return failures != 0;
}
