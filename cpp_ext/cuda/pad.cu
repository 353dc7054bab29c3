// Padding: a thread for each place of ids, a warp for each vector.
#include "headway/cuda/pad.hpp"

#include "device.cuh"

namespace headway::cuda {
namespace {

constexpr unsigned threads = 256;
constexpr int rows_per_block = threads / warp;

// What stands at column t of row b.
struct Place {
    std::int64_t token;  // its place in the ragged batch
    bool inside;         // whether there is one
};

__device__ Place place(const std::int64_t* offsets, std::int64_t b, std::int64_t t,
                       std::int64_t length, bool left) {
    const std::int64_t first = offsets[b], tokens = offsets[b + 1] - first;
    const std::int64_t own = left ? t - (length - tokens) : t;
    return {first + own, own >= 0 && own < tokens};
}

__global__ void pad_ids_kernel(PadIds given) {
    const std::int64_t b = blockIdx.x, t = std::int64_t(blockIdx.y) * threads + threadIdx.x;
    if (t >= given.length) return;
    const Place at = place(given.offsets, b, t, given.length, given.left);
    const std::int64_t out = b * given.length + t;
    given.out_ids[out] = at.inside ? given.ids[at.token] : given.value;
    if (given.out_mask) given.out_mask[out] = at.inside;
    if (given.out_types)
        given.out_types[out] = at.inside && given.types ? given.types[at.token] : 0;
}

template <class Unit, bool padding>
__global__ void move_rows(MoveRows given) {
    const std::int64_t b = blockIdx.x;
    const std::int64_t t = std::int64_t(blockIdx.y) * rows_per_block + threadIdx.x / warp;
    if (t >= given.length) return;
    const Place at = place(given.offsets, b, t, given.length, given.left);
    const std::int64_t units = given.row_bytes / std::int64_t(sizeof(Unit));
    const std::int64_t flat = at.token * units, padded = (b * given.length + t) * units;
    const Unit* from = static_cast<const Unit*>(given.from);
    Unit* to = static_cast<Unit*>(given.to);
    for (std::int64_t u = threadIdx.x % warp; u < units; u += warp)
        if (padding)
            to[padded + u] = at.inside ? from[flat + u] : Unit{};
        else if (at.inside)
            to[flat + u] = from[padded + u];
}

template <bool padding>
void move(const MoveRows& given, Stream stream) {
    const dim3 grid(static_cast<unsigned>(given.batch), rounded_up(given.length, rows_per_block));
    const auto bits = reinterpret_cast<std::uintptr_t>(given.from) |
                      reinterpret_cast<std::uintptr_t>(given.to) |
                      static_cast<std::uintptr_t>(given.row_bytes);
    const auto kernel = bits % 16 == 0  ? move_rows<uint4, padding>
                        : bits % 4 == 0 ? move_rows<std::uint32_t, padding>
                                        : move_rows<std::uint16_t, padding>;
    launch(kernel, grid, threads, 0, stream, given);
}

}  // namespace

void pad_ids(const PadIds& given, Stream stream) {
    const dim3 grid(static_cast<unsigned>(given.batch), rounded_up(given.length, threads));
    launch(pad_ids_kernel, grid, threads, 0, stream, given);
}

void pad(const MoveRows& given, Stream stream) { move<true>(given, stream); }

void unpad(const MoveRows& given, Stream stream) { move<false>(given, stream); }

}  // namespace headway::cuda
