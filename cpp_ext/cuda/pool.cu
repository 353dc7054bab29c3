// Pooling: a block for each text. Its warps share out the tokens, its lanes the columns.
#include "headway/cuda/pool.hpp"

#include "device.cuh"

namespace headway::cuda {
namespace {

constexpr int threads = 512;
constexpr int warps = threads / warp;

struct Room {
    float parts[warps][warp * per_load<__half>];  // what each warp made of its tokens
    float squares[warps];
};

struct Tokens {
    std::int64_t first, count;
};

__device__ Tokens tokens_of(const Pool& given, std::int64_t b) {
    if (given.lengths) return {b * given.tokens, given.lengths[b]};
    return {given.offsets[b], given.offsets[b + 1] - given.offsets[b]};
}

template <class T, class Op>
__global__ void __launch_bounds__(threads) pool_kernel(Pool given) {
    constexpr int own = per_load<T>, columns = warp * own;
    Room& room = shared<Room>();
    const std::int64_t b = blockIdx.x, width = given.width;
    float* out = given.out + b * width;
    Tokens tokens = tokens_of(given, b);
    if (tokens.count < 1) {
        for (std::int64_t j = threadIdx.x; j < width; j += threads) out[j] = infinity - infinity;
        return;
    }
    if (given.kind == Pooling::last) tokens.first += tokens.count - 1;
    if (given.kind == Pooling::cls || given.kind == Pooling::last) tokens.count = 1;
    const float divisor = given.kind == Pooling::mean ? static_cast<float>(tokens.count) : 1.0f;
    const T* hidden = static_cast<const T*>(given.hidden);
    const bool aligned = rows_aligned(hidden, width);
    const int lane = threadIdx.x % warp, group = threadIdx.x / warp;
    float squares = 0.0f;
    for (std::int64_t from = 0; from < width; from += columns) {
        const std::int64_t column = from + lane * own;
        float held[own], next[own];
        for (float& x : held) x = Op::neutral;
#pragma unroll 4
        for (std::int64_t t = group; t < tokens.count; t += warps) {
            load(hidden + (tokens.first + t) * width, column, width, aligned, Op::neutral, next);
            for (int i = 0; i < own; ++i) held[i] = Op::combine(held[i], next[i]);
        }
        for (int i = 0; i < own; ++i) room.parts[group][lane * own + i] = held[i];
        __syncthreads();
        const std::int64_t j = from + threadIdx.x;
        if (threadIdx.x < columns && j < width) {
            float all = room.parts[0][threadIdx.x];
            for (int g = 1; g < warps; ++g) all = Op::combine(all, room.parts[g][threadIdx.x]);
            out[j] = all = all / divisor;
            squares += all * all;
        }
        __syncthreads();
    }
    if (!given.normalize) return;
    const float norm = sqrtf(reduce_block<Add>(squares, room.squares));
    if (threadIdx.x >= columns) return;
    for (std::int64_t j = threadIdx.x; j < width; j += columns)
        out[j] = out[j] / (norm < 1e-12f ? 1e-12f : norm);  // NaN stays NaN
}

}  // namespace

void pool(const Pool& given, Stream stream) {
    with_type(given.type, [&](auto element) {
        using T = decltype(element);
        const auto kernel =
            given.kind == Pooling::max ? pool_kernel<T, Greater> : pool_kernel<T, Add>;
        launch(kernel, static_cast<unsigned>(given.batch), threads, sizeof(Room), stream, given);
    });
}

}  // namespace headway::cuda
