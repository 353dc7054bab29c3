// Search for the best spans: a block for each question looks at every pair of start and end, once
// for each span wanted.
#include "headway/cuda/spans.hpp"

#include "device.cuh"

namespace headway::cuda {
namespace {

constexpr int threads = 256;

struct Span {
    double score;
    std::int64_t first, after;  // after is 0 if there is none
};

struct Room {
    Span taken[most_spans];
    Span best[threads / warp];
};

__device__ bool better(const Span& a, const Span& b) {
    if (b.after == 0 || a.after == 0) return a.after != 0;
    if (a.score != b.score) return a.score > b.score;
    return a.first != b.first ? a.first < b.first : a.after < b.after;
}

__device__ Span best_in_warp(Span span) {
    for (int other = warp / 2; other > 0; other /= 2) {
        const Span theirs{__shfl_xor_sync(all_lanes, span.score, other),
                          __shfl_xor_sync(all_lanes, span.first, other),
                          __shfl_xor_sync(all_lanes, span.after, other)};
        if (better(theirs, span)) span = theirs;
    }
    return span;
}

// Whether one of the spans before has the same characters or, unless overlap, shares any.
__device__ bool taken(const Room& room, std::int64_t count, const Span& span, bool overlap) {
    for (std::int64_t i = 0; i < count; ++i) {
        const Span& other = room.taken[i];
        if (overlap ? span.first == other.first && span.after == other.after
                    : span.first < other.after && other.first < span.after)
            return true;
    }
    return false;
}

// The best span of the windows that is not taken, of those that begin with this thread's tokens.
template <class T>
__device__ Span best_of_thread(const Spans& given, std::int64_t question, const Room& room,
                               std::int64_t count) {
    const T* starts = static_cast<const T*>(given.start);
    const T* ends = static_cast<const T*>(given.end);
    Span best{-double(infinity), 0, 0};
    for (auto r = given.questions[question]; r < given.questions[question + 1]; ++r) {
        const std::int64_t end = given.windows[r + 1];
        for (std::int64_t a = given.windows[r] + threadIdx.x; a < end; a += threads) {
            const float start = as_float(starts[a]);
            if (given.first[a] < 0 || !isfinite(start)) continue;
            const std::int64_t stop = given.longest < end - a ? a + given.longest : end;
            for (std::int64_t b = a; b < stop; ++b) {
                const float last = as_float(ends[b]);
                const Span span{double(start) + double(last), given.first[a], given.after[b]};
                if (!isfinite(last) || span.score < best.score || given.first[b] < 0 ||
                    span.after <= span.first)
                    continue;
                if (better(span, best) && !taken(room, count, span, given.overlap)) best = span;
            }
        }
    }
    return best;
}

template <class T>
__global__ void __launch_bounds__(threads) spans_kernel(Spans given) {
    Room& room = shared<Room>();
    const std::int64_t question = blockIdx.x;
    for (std::int64_t i = 0; i < given.k; ++i) {
        Span best = best_in_warp(best_of_thread<T>(given, question, room, i));
        if (threadIdx.x % warp == 0) room.best[threadIdx.x / warp] = best;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (const Span& other : room.best)
                if (better(other, best)) best = other;
            room.taken[i] = best;  // what is none is taken, too: it is like no span
            const std::int64_t out = question * given.k + i;
            given.scores[out] = best.score;
            given.places[2 * out] = best.first;
            given.places[2 * out + 1] = best.after;
        }
        __syncthreads();
    }
}

}  // namespace

void spans(const Spans& given, Stream stream) {
    with_type(given.type, [&](auto element) {
        launch(spans_kernel<decltype(element)>, static_cast<unsigned>(given.count), threads,
               sizeof(Room), stream, given);
    });
}

}  // namespace headway::cuda
