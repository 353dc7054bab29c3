// Pooling, for Python.
#include "headway/cuda/pool.hpp"

#include <nanobind/stl/string_view.h>

#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto pool_doc =
    "One vector per text (B, D) from one per token (B, T, D): the mean or max of each row's\n"
    "first lengths[b] tokens, its first token (\"cls\") or its last one (\"last\"); normalize\n"
    "divides by max(L2 norm, 1e-12). Sums are float32; a row's result depends on that row\n"
    "alone. A row without tokens gives NaN. ValueError for wrong shapes and types, and for an\n"
    "unknown kind.";
constexpr auto pool_ragged_doc =
    "pool for a ragged batch: hidden (N, D), offsets (B + 1), to (B, D). ValueError as of\n"
    "pool.";

Pooling pooling_named(std::string_view name) {
    if (name == "mean") return Pooling::mean;
    if (name == "max") return Pooling::max;
    if (name == "cls") return Pooling::cls;
    if (name == "last") return Pooling::last;
    refuse("kind is \"", name, "\": it must be mean, max, cls or last");
}

void pool_python(const GivenNumbers<3>& hidden, const Given<std::int64_t, 1>& lengths,
                 std::string_view kind, bool normalize, const Out<float, 2>& out,
                 std::uintptr_t stream) {
    const auto batch = std::int64_t(hidden.shape(0)), tokens = std::int64_t(hidden.shape(1));
    const auto width = std::int64_t(hidden.shape(2));
    check_shape("lengths", lengths, {batch});
    check_shape("out", out, {batch, width});
    pool({hidden.data(), type_of("hidden", hidden), lengths.data(), nullptr, batch, tokens, width,
          pooling_named(kind), normalize, out.data()},
         as_stream(stream));
}

void pool_ragged_python(const GivenNumbers<2>& hidden, const Given<std::int64_t, 1>& offsets,
                        std::string_view kind, bool normalize, const Out<float, 2>& out,
                        std::uintptr_t stream) {
    const std::int64_t batch = rows_of("offsets", offsets), width = std::int64_t(hidden.shape(1));
    check_shape("out", out, {batch, width});
    pool({hidden.data(), type_of("hidden", hidden), nullptr, offsets.data(), batch, 0, width,
          pooling_named(kind), normalize, out.data()},
         as_stream(stream));
}

}  // namespace

void register_pool(nb::module_& module) {
    const auto hidden = nb::arg("hidden").noconvert(), out = nb::arg("out").noconvert();
    module.def("pool", &pool_python, hidden, nb::arg("lengths").noconvert(), nb::arg("kind"),
               nb::arg("normalize"), out, nb::arg("stream") = 0, pool_doc);
    module.def("pool_ragged", &pool_ragged_python, hidden, nb::arg("offsets").noconvert(),
               nb::arg("kind"), nb::arg("normalize"), out, nb::arg("stream") = 0, pool_ragged_doc);
}

}  // namespace headway::cuda
