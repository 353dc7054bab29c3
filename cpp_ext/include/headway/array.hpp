// What the kernels take and give: views of the caller's memory, and fresh buffers of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>

namespace headway {

// A view of rows of float32, borrowed from the caller.  // (rows, columns)
struct Matrix {
    const float* data;
    std::int64_t rows;
    std::int64_t columns;

    const float* row(std::int64_t r) const { return data + r * columns; }
};

// A view of the hidden states of a padded batch, borrowed from the caller.  // (B, T, D)
struct Hidden {
    const float* data;
    std::int64_t batch;
    std::int64_t tokens;
    std::int64_t width;

    const float* row(std::int64_t b) const { return data + b * tokens * width; }
};

inline constexpr std::align_val_t cache_line{64};

struct FreeAligned {
    void operator()(void* memory) const { ::operator delete(memory, cache_line); }
};

// Owned, uninitialised until a kernel fills it, aligned to a cache line.
template <class T>
using Buffer = std::unique_ptr<T[], FreeAligned>;

// Room for rows x columns values. Throws std::bad_alloc when that is more than memory can hold.
template <class T>
Buffer<T> allocate(std::int64_t rows, std::int64_t columns) {
    constexpr auto most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());
    const auto n = static_cast<std::size_t>(rows);
    const auto m = static_cast<std::size_t>(columns);
    if (m != 0 && n > most / sizeof(T) / m) throw std::bad_array_new_length();
    return Buffer<T>(static_cast<T*>(::operator new(n * m * sizeof(T), cache_line)));
}

}  // namespace headway
