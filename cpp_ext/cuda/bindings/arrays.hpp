// Arrays in the GPU's memory, from whatever has __dlpack__: PyTorch, CuPy, JAX, cuda.core.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>

#include "headway/cuda/device.hpp"
#include "refuse.hpp"

namespace headway::cuda {

namespace nb = nanobind;

template <class T, std::size_t dimensions>
using Given = nb::ndarray<const T, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;
template <class T, std::size_t dimensions>
using Out = nb::ndarray<T, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;

// Numbers of a model: float32, float16 or bfloat16.
template <std::size_t dimensions>
using GivenNumbers = nb::ndarray<nb::ro, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;
template <std::size_t dimensions>
using OutNumbers = nb::ndarray<nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;

template <class Array>
Type type_of(const char* name, const Array& array) {
    const nb::dlpack::dtype found = array.dtype();
    const auto code = static_cast<nb::dlpack::dtype_code>(found.code);
    if (found.lanes == 1 && found.bits == 32 && code == nb::dlpack::dtype_code::Float)
        return Type::f32;
    if (found.lanes == 1 && found.bits == 16 && code == nb::dlpack::dtype_code::Float)
        return Type::f16;
    if (found.lanes == 1 && found.bits == 16 && code == nb::dlpack::dtype_code::Bfloat)
        return Type::bf16;
    refuse(name, " must be float32, float16 or bfloat16");
}

template <class Array>
void check_shape(const char* name, const Array& array, std::initializer_list<std::int64_t> want) {
    std::size_t i = 0;
    bool same = true;
    std::ostringstream wanted, found;
    for (const std::int64_t size : want) {
        same &= std::int64_t(array.shape(i)) == size;
        wanted << (i ? ", " : "(") << size;
        found << (i ? ", " : "(") << array.shape(i);
        ++i;
    }
    if (!same) refuse(name, " is ", found.str(), "), not ", wanted.str(), ")");
}

// How many rows offsets describe.
inline std::int64_t rows_of(const char* name, const Given<std::int64_t, 1>& offsets) {
    if (offsets.size() == 0) refuse(name, " is empty: it must hold one number more than rows");
    return std::int64_t(offsets.size()) - 1;
}

inline Stream as_stream(std::uintptr_t handle) { return reinterpret_cast<Stream>(handle); }

}  // namespace headway::cuda
