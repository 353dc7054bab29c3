// NumPy arrays in and out: views of the arguments without a copy, results handed over without one.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "headway/array.hpp"

namespace headway {

namespace nb = nanobind;

// Arguments: C-contiguous, on the CPU. Bind them with noconvert, or nanobind copies others.
template <class T, std::size_t dimensions>
using Given = nb::ndarray<const T, nb::numpy, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
template <class T, std::size_t dimensions>
using Result = nb::ndarray<nb::numpy, T, nb::ndim<dimensions>>;

template <class T>
std::span<const T> as_span(const Given<T, 1>& array) {
    return {array.data(), array.size()};
}

// Offsets and lengths are short: they are widened once, so that kernels exist for one type only.
template <class T>
std::vector<std::int64_t> as_int64(const Given<T, 1>& array) {
    return {array.data(), array.data() + array.size()};
}

inline Matrix as_matrix(const Given<float, 2>& array) {
    return {array.data(), std::int64_t(array.shape(0)), std::int64_t(array.shape(1))};
}

inline Hidden as_hidden(const Given<float, 3>& array) {
    return {array.data(), std::int64_t(array.shape(0)), std::int64_t(array.shape(1)),
            std::int64_t(array.shape(2))};
}

// Runs a kernel while other Python threads go on.
template <class Kernel>
auto without_gil(Kernel kernel) {
    nb::gil_scoped_release released;
    return kernel();
}

// A new NumPy array that owns the buffer.
template <std::size_t dimensions, class T>
Result<T, dimensions> as_numpy(Buffer<T> buffer, const std::int64_t (&shape)[dimensions]) {
    std::size_t sizes[dimensions];
    for (std::size_t i = 0; i < dimensions; ++i) sizes[i] = static_cast<std::size_t>(shape[i]);
    nb::capsule owner(buffer.get(), [](void* data) noexcept { FreeAligned()(data); });
    return Result<T, dimensions>(buffer.release(), dimensions, sizes, owner);
}

}  // namespace headway
