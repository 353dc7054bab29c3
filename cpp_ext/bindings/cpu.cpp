// CPU features, for Python.
#include "headway/cpu.hpp"

#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include "register.hpp"

namespace headway {

void register_cpu(nanobind::module_& module) {
    module.def(
        "cpu_features", [] { return cpu_features(); },
        "What this CPU can do and the operating system lets programs use: feature name, as in\n"
        "/proc/cpuinfo, to yes or no. All False on other architectures than x86-64.");
}

}  // namespace headway
