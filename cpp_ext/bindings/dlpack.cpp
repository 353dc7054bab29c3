// Arrays of any device by DLPack, for Python: what one is, and memory as one.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <vector>

#include "register.hpp"

namespace headway {
namespace {

namespace nb = nanobind;

constexpr auto describe_doc =
    "What an array is that has __dlpack__, or a capsule that one gave: its address, its type as\n"
    "\"int64\", its shape, whether its elements lie in order without gaps, and its device as\n"
    "DLPack's kind and number. TypeError for anything else.";
constexpr auto lend_doc =
    "Memory at an address as an array of float32 in that shape on a device, given as DLPack's\n"
    "kind and number. It has __dlpack__, and holds the owner as long as anybody holds it.";

std::string type_name(nb::dlpack::dtype type) {
    using Code = nb::dlpack::dtype_code;
    const auto code = static_cast<Code>(type.code);
    const char* kind = code == Code::Int      ? "int"
                       : code == Code::UInt   ? "uint"
                       : code == Code::Float  ? "float"
                       : code == Code::Bfloat ? "bfloat"
                       : code == Code::Bool   ? "bool"
                                              : "other";
    return kind + std::to_string(type.bits) +
           (type.lanes == 1 ? "" : "x" + std::to_string(type.lanes));
}

nb::tuple describe(const nb::ndarray<nb::ro>& array) {
    std::vector<std::size_t> shape(array.ndim());
    bool in_order = true;
    std::int64_t step = 1;
    for (std::size_t i = array.ndim(); i-- > 0;) {
        shape[i] = array.shape(i);
        in_order &= shape[i] <= 1 || array.stride(i) == step;
        step *= std::int64_t(shape[i]);
    }
    return nb::make_tuple(reinterpret_cast<std::uintptr_t>(array.data()), type_name(array.dtype()),
                          nb::tuple(nb::cast(shape)), in_order, array.device_type(),
                          array.device_id());
}

nb::object lend(std::uintptr_t address, const std::vector<std::size_t>& shape, int kind, int number,
                nb::handle owner) {
    using Lent = nb::ndarray<nb::array_api, float>;
    return nb::cast(Lent(reinterpret_cast<float*>(address), shape.size(), shape.data(), owner,
                         nullptr, nb::dtype<float>(), kind, number));
}

}  // namespace

void register_dlpack(nb::module_& module) {
    module.def(
        "describe", &describe, nb::arg("array").noconvert(),
        nb::sig("def describe(array: object) -> tuple[int, str, tuple[int, ...], bool, int, int]"),
        describe_doc);
    module.def("lend", &lend, nb::arg("address"), nb::arg("shape"), nb::arg("kind"),
               nb::arg("number"), nb::arg("owner"), lend_doc);
}

}  // namespace headway
