// Softmax, argmax and top-k, for Python.
#include "headway/softmax.hpp"

#include <nanobind/stl/pair.h>

#include "arrays.hpp"
#include "register.hpp"

namespace headway {
namespace {

constexpr auto softmax_doc =
    "Probabilities (B, C) of logits (B, C), row by row. -inf gives 0. ValueError for NaN, +inf, a\n"
    "row of nothing but -inf, and C = 0.";
constexpr auto argmax_doc =
    "Where each row's maximum stands (B), the first among equals. ValueError for NaN and C = 0.";
constexpr auto top_k_doc =
    "The k largest entries of each row, descending (B, k), and where they stand (B, k), the lower\n"
    "index first among equals. ValueError for NaN and unless 1 <= k <= C.";

Result<float, 2> softmax_numpy(const Given<float, 2>& logits) {
    const Matrix view = as_matrix(logits);
    auto out = without_gil([&] { return softmax(view); });
    return as_numpy<2>(std::move(out), {view.rows, view.columns});
}

Result<std::int32_t, 1> argmax_numpy(const Given<float, 2>& logits) {
    const Matrix view = as_matrix(logits);
    auto out = without_gil([&] { return argmax(view); });
    return as_numpy<1>(std::move(out), {view.rows});
}

std::pair<Result<float, 2>, Result<std::int32_t, 2>> top_k_numpy(const Given<float, 2>& values,
                                                                 std::int64_t k) {
    const Matrix view = as_matrix(values);
    TopK out = without_gil([&] { return top_k(view, k); });
    return {as_numpy<2>(std::move(out.values), {view.rows, k}),
            as_numpy<2>(std::move(out.indices), {view.rows, k})};
}

}  // namespace

void register_softmax(nb::module_& module) {
    module.def("softmax", &softmax_numpy, nb::arg("logits").noconvert(), softmax_doc);
    module.def("argmax", &argmax_numpy, nb::arg("logits").noconvert(), argmax_doc);
    module.def("top_k", &top_k_numpy, nb::arg("values").noconvert(), nb::arg("k"), top_k_doc);
}

}  // namespace headway
