// The device and its errors.
#include "headway/cuda/device.hpp"

#include <cuda_runtime.h>

namespace headway::cuda {

Error::Error(int code)
    : std::runtime_error("CUDA error " + std::to_string(code) + ": " +
                         cudaGetErrorString(static_cast<cudaError_t>(code))),
      code(code),
      unavailable(code == cudaErrorInsufficientDriver || code == cudaErrorNoDevice ||
                  code == cudaErrorInitializationError || code == cudaErrorSystemDriverMismatch ||
                  code == cudaErrorNoKernelImageForDevice) {}

void check(int code) {
    if (code != cudaSuccess) throw Error(code);
}

void check_device() {
    int count = 0;
    check(cudaGetDeviceCount(&count));
    if (count == 0) throw Error(cudaErrorNoDevice);
}

int current_device() {
    int device = 0;
    check(cudaGetDevice(&device));
    return device;
}

Memory::Memory(std::size_t bytes) { check(cudaMalloc(&data_, bytes)); }

Memory::~Memory() { cudaFree(data_); }

void copy(void* to, const void* from, std::size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(stream)));
    synchronize(stream);
}

void fill(void* at, int byte, std::size_t bytes, Stream stream) {
    check(cudaMemsetAsync(at, byte, bytes, static_cast<cudaStream_t>(stream)));
}

void synchronize(Stream stream) { check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream))); }

}  // namespace headway::cuda
