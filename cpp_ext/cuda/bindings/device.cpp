// The device and its errors, for Python.
#include "headway/cuda/device.hpp"

#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto check_device_doc = "UnavailableError unless there is a GPU that can be used.";
constexpr auto synchronize_doc =
    "Wait for all work on the stream. RuntimeError where some of it failed.";

// The Python class stands where it can be named without this module.
void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const Error& error) {
        if (!error.unavailable) throw;
        const nb::object type =
            nb::module_::import_("headway.cpp_ext.cuda").attr("UnavailableError");
        PyErr_SetObject(type.ptr(), type("a GPU", error.what()).ptr());
    }
}

}  // namespace

void register_device(nb::module_& module) {
    nb::register_exception_translator(translate);
    module.def("check_device", &check_device, check_device_doc);
    module.def(
        "synchronize",
        [](std::uintptr_t stream) {
            nb::gil_scoped_release released;
            synchronize(as_stream(stream));
        },
        nb::arg("stream") = 0, synchronize_doc);
}

}  // namespace headway::cuda
