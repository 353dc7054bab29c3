// CUDA without a GPU, for tests: threads of a block are fibers that take turns at barriers.
//
// Fibers go on in a chosen order, and only one at a time: what a kernel reads before a barrier that
// is missing differs from order to order. A block's memory begins as garbage. What waits for a
// thread that never comes is an error, and so is a barrier after which some threads are gone.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __host__
#define __device__
#define __shared__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;

    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) uint4 {
    std::uint32_t x, y, z, w;
};

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorSystemDriverMismatch = 803,
};
enum cudaMemcpyKind { cudaMemcpyDefault };
using cudaStream_t = struct CUstream_st*;

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;  // of the thread that is running

namespace emulate {

enum class Order { forward, backward, shuffled };
inline Order order = Order::forward;

inline constexpr std::size_t most_memory = 48 * 1024;  // what a block has without asking for more
inline constexpr unsigned warp = 32;

void run(const cudaLaunchConfig_t& config, const std::function<void()>& kernel);
void wait_for_block();
void wait_for_warp();

// Of the running thread's warp: what each lane shows the others, twice, so that lanes may already
// show the next while others still look.
void* shown_by(unsigned lane, bool next);
bool& turn();

template <class T>
T exchange(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 16);
    if (mask != 0xFFFFFFFFu) std::abort();  // a warp in part is not emulated
    const bool now = turn() = !turn();
    std::memcpy(shown_by(threadIdx.x % warp, now), &value, sizeof(T));
    wait_for_warp();
    std::memcpy(&value, shown_by(from, now), sizeof(T));
    return value;
}

}  // namespace emulate

namespace headway::cuda {
extern uint4 block_memory[];
}

inline void __syncthreads() { emulate::wait_for_block(); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
    return emulate::exchange(mask, value, (threadIdx.x % emulate::warp) ^ unsigned(other));
}

template <class T>
T atomicAdd(T* at, T value) {
    const T before = *at;
    *at += value;
    return before;
}

template <class T>
T atomicOr(T* at, T value) {
    const T before = *at;
    *at |= value;
    return before;
}

template <class T>
T atomicMin(T* at, T value) {
    const T before = *at;
    if (value < before) *at = value;
    return before;
}

template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Parameters&... arguments) {
    emulate::run(*config, [&] { kernel(arguments...); });
    return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t code);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaMalloc(void** at, std::size_t bytes);
cudaError_t cudaFree(void* at);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* at, int byte, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
