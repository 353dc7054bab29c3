// What the kernels share: elements, wide loads, reductions, launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "headway/cuda/device.hpp"

namespace headway::cuda {

inline constexpr unsigned all_lanes = 0xFFFFFFFFu;
inline constexpr int warp = 32;
inline constexpr float infinity = __builtin_huge_valf();

// The block's memory, as one struct for each kernel; the launch says how large it is.
template <class Room>
__device__ Room& shared() {
    extern __shared__ uint4 block_memory[];
    return *reinterpret_cast<Room*>(block_memory);
}

// Elements.

__device__ inline float as_float(float x) { return x; }
__device__ inline float as_float(__half x) { return __half2float(x); }
__device__ inline float as_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// As many elements as one load of 16 bytes brings.
template <class T>
inline constexpr int per_load = 16 / sizeof(T);

// Whether every row of so many elements begins at a multiple of 16 bytes.
template <class T>
__device__ bool rows_aligned(const T* data, std::int64_t columns) {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && columns % per_load<T> == 0;
}

// Elements from column on, as floats; fill where the row has ended.
template <class T>
__device__ void load(const T* row, std::int64_t column, std::int64_t columns, bool aligned,
                     float fill, float (&out)[per_load<T>]) {
    if (aligned && column < columns) {
        const uint4 bits = *reinterpret_cast<const uint4*>(row + column);
        T held[per_load<T>];
        __builtin_memcpy(held, &bits, sizeof(bits));
        for (int i = 0; i < per_load<T>; ++i) out[i] = as_float(held[i]);
        return;
    }
    for (int i = 0; i < per_load<T>; ++i)
        out[i] = column + i < columns ? as_float(row[column + i]) : fill;
}

// Reductions; every lane, or thread, gets the result. All must take part.

struct Add {
    static constexpr float neutral = 0.0f;
    template <class T>
    static __device__ T combine(T a, T b) {
        return a + b;
    }
};

struct Greater {  // NaN if either is
    static constexpr float neutral = -infinity;
    template <class T>
    static __device__ T combine(T a, T b) {
        return a > b || a != a ? a : b;
    }
};

template <class Op, class T>
__device__ T reduce_lanes(T value, int lanes = warp) {
    for (int other = lanes / 2; other > 0; other /= 2)
        value = Op::combine(value, __shfl_xor_sync(all_lanes, value, other));
    return value;
}

// warps: room for a value of each warp; may be used again after the next barrier.
template <class Op, class T>
__device__ T reduce_block(T value, T* warps) {
    const int count = blockDim.x / warp;
    value = reduce_lanes<Op>(value);
    if (count == 1) return value;
    if (threadIdx.x % warp == 0) warps[threadIdx.x / warp] = value;
    __syncthreads();
    value = warps[0];
    for (int w = 1; w < count; ++w) value = Op::combine(value, warps[w]);
    return value;
}

// Launches.

inline unsigned rounded_up(std::int64_t n, std::int64_t by) {
    return static_cast<unsigned>((n + by - 1) / by);
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared,
            Stream stream, const Parameters&... arguments) {
    if (grid.x == 0 || grid.y == 0) return;  // CUDA refuses empty grids
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = static_cast<cudaStream_t>(stream);
    check(cudaLaunchKernelEx(&config, kernel, arguments...));
}

// Calls visit with an element of the type.
template <class Visit>
void with_type(Type type, Visit visit) {
    if (type == Type::f32) visit(float{});
    if (type == Type::f16) visit(__half{});
    if (type == Type::bf16) visit(__nv_bfloat16{});
}

}  // namespace headway::cuda
