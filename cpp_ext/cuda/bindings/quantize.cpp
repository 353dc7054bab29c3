// int8 per token, for Python.
#include "headway/cuda/quantize.hpp"

#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto quantize_doc =
    "Floats (N, D) to int8 (N, D) with one scale per token (N): max(greatest size / 127,\n"
    "1e-20), as the exporter's int8 has it; values are rounded half to even. ValueError for\n"
    "wrong shapes and types.";

void quantize_python(const GivenNumbers<2>& x, const Out<std::int8_t, 2>& out,
                     const Out<float, 1>& scales, std::uintptr_t stream) {
    const auto rows = std::int64_t(x.shape(0)), columns = std::int64_t(x.shape(1));
    check_shape("out", out, {rows, columns});
    check_shape("scales", scales, {rows});
    quantize({x.data(), type_of("x", x), rows, columns, out.data(), scales.data()},
             as_stream(stream));
}

}  // namespace

void register_quantize(nb::module_& module) {
    module.def("quantize", &quantize_python, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
               nb::arg("scales").noconvert(), nb::arg("stream") = 0, quantize_doc);
}

}  // namespace headway::cuda
