// What the tests of CUDA kernels share: arrays on the device, numbers of each type, orders of
// threads. The same tests run on a GPU, and everywhere on the emulator.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "../check.hpp"
#include "headway/cuda/device.hpp"

using headway::cuda::Type;

inline constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr Type every_type[] = {Type::f32, Type::f16, Type::bf16};

// An array in the GPU's memory, between guards that no kernel may touch.
template <class T>
class Device {
  public:
    explicit Device(std::size_t count, std::size_t shift = 0)
        : count_(count), before_(guard + shift) {
        if (cudaMalloc(reinterpret_cast<void**>(&memory_), bytes()) != cudaSuccess)
            throw std::bad_alloc();
        cudaMemsetAsync(memory_, guard_byte, bytes(), nullptr);
    }
    // shift: elements beyond a place that suits wide loads
    explicit Device(const std::vector<T>& values, std::size_t shift = 0)
        : Device(values.size(), shift) {
        cudaMemcpyAsync(data(), values.data(), count_ * sizeof(T), cudaMemcpyDefault, nullptr);
    }
    ~Device() { cudaFree(memory_); }
    Device(const Device&) = delete;

    T* data() { return memory_ + before_; }
    std::vector<T> read() {
        std::vector<T> all(before_ + count_ + guard);
        cudaMemcpyAsync(all.data(), memory_, bytes(), cudaMemcpyDefault, nullptr);
        headway::cuda::synchronize(nullptr);
        const auto* raw = reinterpret_cast<const unsigned char*>(all.data());
        for (std::size_t i = 0; i < bytes(); ++i)
            if (i < before_ * sizeof(T) || i >= (before_ + count_) * sizeof(T))
                CHECK(raw[i] == guard_byte);
        return {all.begin() + before_, all.begin() + before_ + count_};
    }

  private:
    static constexpr std::size_t guard = 64;
    static constexpr int guard_byte = 0xC7;

    std::size_t bytes() const { return (before_ + count_ + guard) * sizeof(T); }

    std::size_t count_, before_;
    T* memory_ = nullptr;
};

// Floats as numbers of a type: in the GPU's memory, and what they are after that rounding.
class Numbers {
  public:
    Numbers(std::vector<float> values, Type type, std::size_t shift = 0)
        : f32_(type == Type::f32 ? values : std::vector<float>{}, shift),
          f16_(type == Type::f16 ? halves(values) : std::vector<__half>{}, shift),
          bf16_(type == Type::bf16 ? brains(values) : std::vector<__nv_bfloat16>{}, shift),
          values_(std::move(values)),
          type_(type) {}

    const void* data() {
        if (type_ == Type::f32) return f32_.data();
        return type_ == Type::f16 ? static_cast<void*>(f16_.data()) : bf16_.data();
    }
    Type type() const { return type_; }
    const std::vector<float>& values() const { return values_; }

  private:
    static std::vector<__half> halves(std::vector<float>& values) {
        std::vector<__half> out;
        for (float& x : values) {
            out.push_back(__float2half(x));
            x = __half2float(out.back());
        }
        return out;
    }
    static std::vector<__nv_bfloat16> brains(std::vector<float>& values) {
        std::vector<__nv_bfloat16> out;
        for (float& x : values) {
            out.push_back(__float2bfloat16(x));
            x = __bfloat162float(out.back());
        }
        return out;
    }

    Device<float> f32_;
    Device<__half> f16_;
    Device<__nv_bfloat16> bf16_;
    std::vector<float> values_;
    Type type_;
};

// A test on whatever device there is; its result is main's.
template <class Test>
int on_device(Test test) {
#ifdef HEADWAY_EMULATE
    using emulate::Order;
    for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
        emulate::order = order;
        test();
    }
#else
    constexpr int skipped = 77;
    try {
        headway::cuda::check_device();
    } catch (const headway::cuda::Error& error) {
        std::cerr << "skipped: " << error.what() << "\n";
        return skipped;
    }
    test();
#endif
    return failures == 0 ? 0 : 1;
}
