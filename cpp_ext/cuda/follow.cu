// Caches that follow others: a block for each head of each row of each cache.
#include "headway/cuda/follow.hpp"

#include "device.cuh"

namespace headway::cuda {
namespace {

constexpr unsigned threads = 128;

// In place, only rows that follow others are written, and nothing that is written is read.
template <class Unit>
__global__ void __launch_bounds__(threads) follow_kernel(Follow given) {
    const std::int64_t row = blockIdx.x, parent = given.parents[row];
    const std::int64_t cache = blockIdx.y / given.heads, head = blockIdx.y % given.heads;
    const auto* from = static_cast<const Unit*>(given.from[cache]);
    auto* to = static_cast<Unit*>(given.to[cache]);
    if (from == to && parent == row) return;
    const std::int64_t width = given.bytes / std::int64_t(sizeof(Unit));
    from += (parent * given.heads + head) * given.from_columns * width;
    to += ((row * given.heads + head) * given.to_columns + (given.at ? *given.at : 0)) * width;
    const std::int64_t count = *given.written * width;
    for (std::int64_t i = threadIdx.x; i < count; i += threads) to[i] = from[i];
}

__global__ void __launch_bounds__(threads)
    advance_kernel(std::int64_t* numbers, std::int64_t count, std::int64_t by) {
    const std::int64_t i = std::int64_t(blockIdx.x) * threads + threadIdx.x;
    if (i < count) numbers[i] += by;
}

}  // namespace

void follow(const Follow& given, Stream stream) {
    const dim3 grid(static_cast<unsigned>(given.rows),
                    static_cast<unsigned>(given.caches * given.heads));
    const auto kernel = given.bytes % 16 == 0  ? follow_kernel<uint4>
                        : given.bytes % 4 == 0 ? follow_kernel<std::uint32_t>
                                               : follow_kernel<std::uint16_t>;
    launch(kernel, grid, threads, 0, stream, given);
}

void advance(std::int64_t* numbers, std::int64_t count, std::int64_t by, Stream stream) {
    launch(advance_kernel, dim3(rounded_up(count, threads)), threads, 0, stream, numbers, count,
           by);
}

}  // namespace headway::cuda
