// What all kernels for NVIDIA GPUs have in common: element types, streams, errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace headway::cuda {

// Every launcher puts its work on a stream and returns at once. Arrays are the caller's and lie in
// the GPU's memory, so what they hold is not checked: offsets must be as ragged.hpp says.

using Stream = void*;  // a cudaStream_t; null: the default one

enum class Type { f32, f16, bf16 };  // of the numbers that a model gives

// What CUDA refused: no driver, no device, no memory, a launch that failed.
class Error : public std::runtime_error {
  public:
    explicit Error(int code);

    const int code;          // a cudaError_t
    const bool unavailable;  // whether there is no driver, none that is new enough, or no device
};

// Throws Error unless it is 0.
void check(int code);

// Throws Error unless there is a device that can be used.
void check_device();

// The device that kernels are launched on: it must be the one that the arrays are on. Throws Error.
int current_device();

// Memory of the GPU.
class Memory {
  public:
    explicit Memory(std::size_t bytes);  // throws Error
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    void* data() const { return data_; }

  private:
    void* data_ = nullptr;
};

// Copies in either direction on the stream, and waits for it. Throws Error.
void copy(void* to, const void* from, std::size_t bytes, Stream stream);

// Sets each byte, on the stream. Throws Error.
void fill(void* at, int byte, std::size_t bytes, Stream stream);

// Waits for all work on the stream. Throws Error where some of it failed.
void synchronize(Stream stream);

}  // namespace headway::cuda
