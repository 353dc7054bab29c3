// int8 per token: a block for each row, which it holds in registers unless the row is very long.
#include "headway/cuda/quantize.hpp"

#include "device.cuh"

namespace headway::cuda {
namespace {

constexpr int most_threads = 256;
constexpr int held_loads = 4;  // of each thread
constexpr float share = 1.0f / 127.0f;
constexpr float least_scale = 1e-20f;

struct Room {
    float most[most_threads / warp];
};

template <int count>
__device__ float greatest_size(const float (&x)[count], float most) {
    for (int i = 0; i < count; ++i) most = Greater::combine(fabsf(x[i]), most);
    return most;
}

template <int count>
__device__ void store(const float (&x)[count], float scale, std::int8_t* row, std::int64_t column,
                      std::int64_t columns, bool aligned) {
    struct alignas(count) Bytes {
        std::int8_t values[count];
    } bytes;
    for (int i = 0; i < count; ++i)
        bytes.values[i] =
            static_cast<std::int8_t>(fminf(fmaxf(rintf(x[i] / scale), -127.0f), 127.0f));
    if (aligned && column < columns) {
        *reinterpret_cast<Bytes*>(row + column) = bytes;
        return;
    }
    for (int i = 0; i < count; ++i)
        if (column + i < columns) row[column + i] = bytes.values[i];
}

template <class T>
__global__ void __launch_bounds__(most_threads) quantize_kernel(Quantize given) {
    constexpr int own = per_load<T>;
    Room& room = shared<Room>();
    const std::int64_t n = blockIdx.x, columns = given.columns, step = blockDim.x * own;
    const T* row = static_cast<const T*>(given.x) + n * columns;
    std::int8_t* out = given.out + n * columns;
    const bool aligned = rows_aligned(static_cast<const T*>(given.x), columns);
    const bool out_aligned = rows_aligned(given.out, columns * (16 / own));
    const std::int64_t first = threadIdx.x * own;
    float held[held_loads][own], rest[own], most = 0.0f;
    for (int l = 0; l < held_loads; ++l) {
        load(row, first + l * step, columns, aligned, 0.0f, held[l]);
        most = greatest_size(held[l], most);
    }
    for (std::int64_t j = first + held_loads * step; j < columns; j += step) {
        load(row, j, columns, aligned, 0.0f, rest);
        most = greatest_size(rest, most);
    }
    most = reduce_block<Greater>(most, room.most);
    const float wanted = most * share;
    const float scale = wanted < least_scale ? least_scale : wanted;  // NaN stays NaN
    if (threadIdx.x == 0) given.scales[n] = scale;
    for (int l = 0; l < held_loads; ++l)
        store(held[l], scale, out, first + l * step, columns, out_aligned);
    for (std::int64_t j = first + held_loads * step; j < columns; j += step) {
        load(row, j, columns, aligned, 0.0f, rest);
        store(rest, scale, out, j, columns, out_aligned);
    }
}

}  // namespace

void quantize(const Quantize& given, Stream stream) {
    with_type(given.type, [&](auto element) {
        using T = decltype(element);
        const std::int64_t loads = rounded_up(given.columns, per_load<T>);
        const unsigned wanted = rounded_up(loads, 2 * warp) * warp;  // two loads of each thread
        const unsigned threads = wanted < warp           ? warp
                                 : wanted < most_threads ? wanted
                                                         : most_threads;
        launch(quantize_kernel<T>, static_cast<unsigned>(given.rows), threads, sizeof(Room), stream,
               given);
    });
}

}  // namespace headway::cuda
