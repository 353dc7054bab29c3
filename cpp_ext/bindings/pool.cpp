// Pooling, for Python.
#include "headway/pool.hpp"

#include <nanobind/stl/string_view.h>

#include "arrays.hpp"
#include "headway/ragged.hpp"
#include "register.hpp"

namespace headway {
namespace {

constexpr auto pool_doc =
    "One vector per text (B, D) from one per token (B, T, D): the mean or max of each row's first\n"
    "lengths[b] tokens, or its first token (\"cls\"); normalize divides by max(L2 norm, 1e-12).\n"
    "A row's result depends on that row alone, to the last bit. ValueError for a length outside\n"
    "1 to T and for an unknown kind.";
constexpr auto pool_ragged_doc =
    "pool for a ragged batch: hidden (N, D), offsets (B + 1) that start at 0 and end at N, to\n"
    "(B, D). ValueError for wrong offsets, for a row without tokens and for an unknown kind.";

template <class Index>
Result<float, 2> pool_numpy(const Given<float, 3>& hidden, const Given<Index, 1>& lengths,
                            std::string_view kind, bool normalize) {
    const auto counts = as_int64(lengths);
    const Hidden view = as_hidden(hidden);
    auto out = without_gil([&] { return pool(view, counts, pooling_named(kind), normalize); });
    return as_numpy<2>(std::move(out), {view.batch, view.width});
}

template <class Index>
Result<float, 2> pool_ragged_numpy(const Given<float, 2>& hidden, const Given<Index, 1>& offsets,
                                   std::string_view kind, bool normalize) {
    const auto starts = as_int64(offsets);
    const Matrix view = as_matrix(hidden);
    auto out =
        without_gil([&] { return pool_ragged(view, starts, pooling_named(kind), normalize); });
    return as_numpy<2>(std::move(out), {row_count(starts), view.columns});
}

template <class Index>
void register_for(nb::module_& module) {
    const auto hidden = nb::arg("hidden").noconvert();
    module.def("pool", &pool_numpy<Index>, hidden, nb::arg("lengths").noconvert(), nb::arg("kind"),
               nb::arg("normalize"), pool_doc);
    module.def("pool_ragged", &pool_ragged_numpy<Index>, hidden, nb::arg("offsets").noconvert(),
               nb::arg("kind"), nb::arg("normalize"), pool_ragged_doc);
}

}  // namespace

void register_pool(nb::module_& module) {
    register_for<std::int32_t>(module);
    register_for<std::int64_t>(module);
}

}  // namespace headway
