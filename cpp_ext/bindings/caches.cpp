// Key/value caches, for Python.
#include "headway/caches.hpp"

#include <nanobind/stl/vector.h>

#include "arrays.hpp"
#include "register.hpp"

namespace headway {
namespace {

template <class T, std::size_t dimensions>
using Held = nb::ndarray<T, nb::numpy, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

constexpr auto doc =
    "Let each row of the caches (R, heads, columns, width) be what its parent (R) was, in its "
    "first\n"
    "`written` columns, in place. origin (R, columns): the row that wrote what stands in each\n"
    "column; only what stands behind the first difference is copied, and origin follows.\n"
    "ValueError, and nothing is changed, for other shapes, and for a row that shall follow "
    "another\n"
    "and be followed.";

void follow_numpy(const std::vector<Held<float, 4>>& caches, const Held<std::int64_t, 2>& origin,
                  const Given<std::int64_t, 1>& parents, std::int64_t written) {
    std::vector<Cache> views;
    for (const auto& c : caches)
        views.push_back({c.data(), std::int64_t(c.shape(0)), std::int64_t(c.shape(1)),
                         std::int64_t(c.shape(2)), std::int64_t(c.shape(3))});
    const Origin wrote{origin.data(), std::int64_t(origin.shape(0)), std::int64_t(origin.shape(1))};
    without_gil([&] { follow(views, wrote, as_span(parents), written); });
}

}  // namespace

void register_caches(nb::module_& module) {
    module.def("follow", &follow_numpy, nb::arg("caches").noconvert(),
               nb::arg("origin").noconvert(), nb::arg("parents").noconvert(), nb::arg("written"),
               doc);
}

}  // namespace headway
