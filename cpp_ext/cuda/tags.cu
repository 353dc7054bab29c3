// Tags: as many lanes for each row as it has tags, up to a warp.
#include "headway/cuda/tags.hpp"

#include "device.cuh"

namespace headway::cuda {
namespace {

constexpr unsigned threads = 256;

struct Best {
    float score;
    std::int32_t tag;
};

__device__ bool better(Best a, Best b) {
    return a.score > b.score || (a.score == b.score && a.tag < b.tag);
}

template <class T>
__global__ void tags_kernel(Tags given, int lanes) {
    const std::int64_t row = std::int64_t(blockIdx.x) * (threads / lanes) + threadIdx.x / lanes;
    const std::int64_t columns = row < given.rows ? given.columns : 0;  // all lanes take part below
    const T* logits = static_cast<const T*>(given.logits) + row * given.columns;
    const int lane = threadIdx.x % lanes;
    const Best none{-infinity, INT32_MAX};
    Best best = none;
    int wrong = 0;
    for (std::int64_t c = lane; c < columns; c += lanes) {
        const Best own{as_float(logits[c]), static_cast<std::int32_t>(c)};
        wrong |= own.score != own.score || own.score == infinity;
        if (better(own, best)) best = own;
    }
    for (int other = lanes / 2; other > 0; other /= 2) {
        const Best theirs{__shfl_xor_sync(all_lanes, best.score, other),
                          __shfl_xor_sync(all_lanes, best.tag, other)};
        if (better(theirs, best)) best = theirs;
        wrong |= __shfl_xor_sync(all_lanes, wrong, other);
    }
    float sum = 0.0f;
    for (std::int64_t c = lane; c < columns; c += lanes)
        sum += expf(as_float(logits[c]) - best.score);
    sum = reduce_lanes<Add>(sum, lanes);
    if (lane != 0 || columns == 0) return;
    wrong |= best.score == -infinity;
    given.tags[row] = wrong ? -1 : best.tag;
    given.chances[row] = wrong ? infinity - infinity : 1.0f / sum;
}

}  // namespace

void tags(const Tags& given, Stream stream) {
    int lanes = 1;
    while (lanes < warp && lanes < given.columns) lanes *= 2;
    with_type(given.type, [&](auto element) {
        launch(tags_kernel<decltype(element)>, rounded_up(given.rows, threads / lanes), threads, 0,
               stream, given, lanes);
    });
}

}  // namespace headway::cuda
