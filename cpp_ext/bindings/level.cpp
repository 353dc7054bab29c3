// The instruction set in use, for Python.
#include "headway/level.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "register.hpp"

namespace headway {

void register_level(nanobind::module_& module) {
    module.def("levels", &levels,
               "The instruction sets the kernels can use here, slowest first: \"scalar\" always,\n"
               "then \"avx2\" and \"avx512\" where this build and this CPU have them.");
    module.def(
        "level", &level_name,
        "The instruction set in use: at first the last of levels(), or what the environment\n"
        "variable HEADWAY_SIMD names.");
    module.def("set_level", &set_level, nanobind::arg("name"),
               "Use this instruction set in the whole process. ValueError when levels() lacks it.");
}

}  // namespace headway
