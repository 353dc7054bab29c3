// Each token's best tag, for Python.
#include "headway/cuda/tags.hpp"

#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto tags_doc =
    "Of logits (W, C) the first index of each row's maximum (W) and the probability that\n"
    "softmax gives it (W); -1 and NaN for rows with NaN or +inf, or of nothing but -inf.\n"
    "ValueError for wrong shapes and types, and for C = 0.";

void tags_python(const GivenNumbers<2>& logits, const Out<std::int32_t, 1>& out_tags,
                 const Out<float, 1>& out_chances, std::uintptr_t stream) {
    const auto rows = std::int64_t(logits.shape(0)), columns = std::int64_t(logits.shape(1));
    if (columns < 1) refuse("logits have no columns");
    check_shape("out_tags", out_tags, {rows});
    check_shape("out_chances", out_chances, {rows});
    tags({logits.data(), type_of("logits", logits), rows, columns, out_tags.data(),
          out_chances.data()},
         as_stream(stream));
}

}  // namespace

void register_tags(nb::module_& module) {
    module.def("tags", &tags_python, nb::arg("logits").noconvert(), nb::arg("out_tags").noconvert(),
               nb::arg("out_chances").noconvert(), nb::arg("stream") = 0, tags_doc);
}

}  // namespace headway::cuda
