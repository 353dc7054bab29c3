// Pooling: checks, rows, and the choice of instruction set.
#include "headway/pool.hpp"

#include <cstring>

#include "dispatch.hpp"
#include "headway/ragged.hpp"
#include "pool_kernels.hpp"
#include "refuse.hpp"

namespace headway {
namespace {

const PoolKernels& kernels() { return in_use<PoolKernels>(HEADWAY_EVERY_LEVEL(pool_kernels)); }

// One text: its n tokens' vectors to one vector.  // (n, d) -> (d)
void pool_row(const PoolKernels& use, const float* x, std::int64_t n, std::int64_t d, Pooling kind,
              bool normalize, float* out) {
    if (d == 0) return;
    if (kind == Pooling::mean) use.mean(x, n, d, out);
    if (kind == Pooling::max) use.max(x, n, d, out);
    if (kind == Pooling::cls) std::memcpy(out, x, d * sizeof(float));
    if (normalize) use.normalize(out, d);
}

}  // namespace

Pooling pooling_named(std::string_view name) {
    if (name == "mean") return Pooling::mean;
    if (name == "max") return Pooling::max;
    if (name == "cls") return Pooling::cls;
    refuse("kind is \"", name, "\": it must be mean, max or cls");
}

Buffer<float> pool(const Hidden& hidden, std::span<const std::int64_t> lengths, Pooling kind,
                   bool normalize) {
    if (static_cast<std::int64_t>(lengths.size()) != hidden.batch)
        refuse("there are ", lengths.size(), " lengths, but hidden has ", hidden.batch, " rows");
    for (std::int64_t b = 0; b < hidden.batch; ++b)
        if (lengths[b] < 1 || lengths[b] > hidden.tokens)
            refuse("row ", b, " has length ", lengths[b], ": it must be 1 to ", hidden.tokens);
    const PoolKernels& use = kernels();
    auto out = allocate<float>(hidden.batch, hidden.width);  // (B, D)
    for (std::int64_t b = 0; b < hidden.batch; ++b)
        pool_row(use, hidden.row(b), lengths[b], hidden.width, kind, normalize,
                 out.get() + b * hidden.width);
    return out;
}

Buffer<float> pool_ragged(const Matrix& hidden, std::span<const std::int64_t> offsets, Pooling kind,
                          bool normalize) {
    check_offsets(offsets, hidden.rows);
    const std::int64_t batch = row_count(offsets), width = hidden.columns;
    for (std::int64_t b = 0; b < batch; ++b)
        if (offsets[b + 1] == offsets[b])
            refuse("row ", b, " has no tokens: offsets ", offsets[b], " to ", offsets[b + 1]);
    const PoolKernels& use = kernels();
    auto out = allocate<float>(batch, width);  // (B, D)
    for (std::int64_t b = 0; b < batch; ++b)
        pool_row(use, hidden.row(offsets[b]), offsets[b + 1] - offsets[b], width, kind, normalize,
                 out.get() + b * width);
    return out;
}

}  // namespace headway
