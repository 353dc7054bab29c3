// Caches that follow others, for Python.
#include "headway/cuda/follow.hpp"

#include <nanobind/stl/array.h>

#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto follow_doc =
    "Let row r (R) of caches (C) become what row parents[r] of others, or of themselves, was in\n"
    "its first `written` columns, all in one launch that may be captured. All is told by\n"
    "addresses in the GPU's memory: from_caches and to_caches of C addresses, parents of R int64,\n"
    "written of one, and at, unless 0, of one: the column that they begin at. shape: (C, R,\n"
    "heads, columns of from, columns of to, bytes of a column). In place, who is followed must\n"
    "follow itself, as Beams gives them; what the arrays hold is not checked. ValueError for\n"
    "a shape that makes no sense.";
constexpr auto advance_doc =
    "Add a number to each of count int64 at an address in the GPU's memory, in one launch.";

using Shape = std::array<std::int64_t, 6>;

void follow_python(std::uintptr_t from, std::uintptr_t to, std::uintptr_t parents,
                   std::uintptr_t written, const Shape& shape, std::uintptr_t at,
                   std::uintptr_t stream) {
    const auto [caches, rows, heads, from_columns, to_columns, bytes] = shape;
    for (const std::int64_t size : shape)
        if (size < 0) refuse("shape holds ", size);
    if (bytes % 2 != 0) refuse("a column has ", bytes, " bytes, which is odd");
    follow(
        {reinterpret_cast<const void* const*>(from), reinterpret_cast<void* const*>(to),
         reinterpret_cast<const std::int64_t*>(parents),
         reinterpret_cast<const std::int64_t*>(written), reinterpret_cast<const std::int64_t*>(at),
         caches, rows, heads, from_columns, to_columns, bytes},
        as_stream(stream));
}

void advance_python(std::uintptr_t numbers, std::int64_t count, std::int64_t by,
                    std::uintptr_t stream) {
    if (count < 0) refuse("count is ", count);
    advance(reinterpret_cast<std::int64_t*>(numbers), count, by, as_stream(stream));
}

}  // namespace

void register_follow(nb::module_& module) {
    module.def("follow", &follow_python, nb::arg("from_caches"), nb::arg("to_caches"),
               nb::arg("parents"), nb::arg("written"), nb::arg("shape"), nb::arg("at") = 0,
               nb::arg("stream") = 0, follow_doc);
    module.def("advance", &advance_python, nb::arg("numbers"), nb::arg("count"), nb::arg("by") = 1,
               nb::arg("stream") = 0, advance_doc);
}

}  // namespace headway::cuda
