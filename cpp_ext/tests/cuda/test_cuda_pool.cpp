// Pooling on the GPU against pooling on the processor; every row alone equals itself in a batch.
#include "cuda_check.hpp"
#include "headway/cuda/pool.hpp"
#include "headway/pool.hpp"

namespace {

using headway::cuda::Pooling;
using Lengths = std::vector<std::int64_t>;

constexpr Pooling every_kind[] = {Pooling::mean, Pooling::max, Pooling::cls, Pooling::last};

// The last token is the first of a text that consists of it.
std::vector<float> on_processor(const float* x, std::int64_t n, std::int64_t d, Pooling kind,
                                bool normalize) {
    if (kind == Pooling::last) x += (n - 1) * d;
    if (kind == Pooling::last) n = 1;
    const auto same = kind == Pooling::mean  ? headway::Pooling::mean
                      : kind == Pooling::max ? headway::Pooling::max
                                             : headway::Pooling::cls;
    const auto out = headway::pool({x, 1, n, d}, Lengths{n}, same, normalize);
    return {out.get(), out.get() + d};
}

std::vector<float> padded(Numbers& hidden, const Lengths& lengths, std::int64_t tokens,
                          std::int64_t width, Pooling kind, bool normalize) {
    Device<std::int64_t> given(lengths);
    const auto batch = std::ssize(lengths);
    Device<float> out(batch * width);
    headway::cuda::pool({hidden.data(), hidden.type(), given.data(), nullptr, batch, tokens, width,
                         kind, normalize, out.data()},
                        nullptr);
    return out.read();
}

std::vector<float> ragged(Numbers& hidden, const Lengths& offsets, std::int64_t width, Pooling kind,
                          bool normalize) {
    Device<std::int64_t> given(offsets);
    const auto batch = std::ssize(offsets) - 1;
    Device<float> out(batch * width);
    headway::cuda::pool({hidden.data(), hidden.type(), nullptr, given.data(), batch, 0, width, kind,
                         normalize, out.data()},
                        nullptr);
    return out.read();
}

void check_batch(std::int64_t batch, std::int64_t longest, std::int64_t width, Type type,
                 Pooling kind, bool normalize, std::size_t shift = 0) {
    const auto offsets = random_offsets(batch, 1, longest);
    Lengths lengths;
    for (std::int64_t b = 0; b < batch; ++b) lengths.push_back(offsets[b + 1] - offsets[b]);
    Numbers hidden(random_floats(batch * longest * width), type, shift);
    const auto got = padded(hidden, lengths, longest, width, kind, normalize);
    const auto got_ragged = ragged(hidden, offsets, width, kind, normalize);
    for (std::int64_t b = 0; b < batch; ++b) {
        const float* row = hidden.values().data() + b * longest * width;
        const float* flat = hidden.values().data() + offsets[b] * width;
        const auto want = on_processor(row, lengths[b], width, kind, normalize);
        const auto want_ragged = on_processor(flat, lengths[b], width, kind, normalize);
        Numbers own(std::vector<float>(row, row + lengths[b] * width), type);
        const auto alone = ragged(own, {0, lengths[b]}, width, kind, normalize);
        for (std::int64_t j = 0; j < width; ++j) {
            CHECK_CLOSE(got[b * width + j], want[j]);
            CHECK_CLOSE(got_ragged[b * width + j], want_ragged[j]);
            CHECK(got[b * width + j] == alone[j]);
        }
    }
}

void check_special_values(Type type) {
    std::vector<float> values(3 * 20, 1.0f);  // (T, D)
    values[0] = values[20 + 7] = values[40 + 19] = nan_value;
    Numbers some(values, type), zeros(std::vector<float>(20), type);
    for (const Pooling kind : {Pooling::mean, Pooling::max}) {
        const auto out = padded(some, {3}, 3, 20, kind, false);
        for (int j = 0; j < 20; ++j) CHECK(std::isnan(out[j]) == (j == 0 || j == 7 || j == 19));
    }
    for (const float x : padded(zeros, {1}, 1, 20, Pooling::mean, true)) CHECK(x == 0.0f);
    for (const Pooling kind : every_kind) {
        const auto out = ragged(zeros, {0, 0, 1}, 20, kind, true);
        for (int j = 0; j < 40; ++j) CHECK(j < 20 ? std::isnan(out[j]) : out[j] == 0.0f);
    }
}

}  // namespace

int main() {
    return on_device([] {
        for (const Type type : every_type) {
            for (const Pooling kind : every_kind)
                for (const bool normalize : {false, true}) {
                    check_batch(0, 3, 4, type, kind, normalize);
                    check_batch(2, 2, 0, type, kind, normalize);
                    check_batch(2, 40, 7, type, kind, normalize);
                    check_batch(2, 1, 8, type, kind, normalize);
                    check_batch(2, 5, 296, type, kind, normalize);
                }
            check_batch(2, 18, 264, type, Pooling::mean, true, 1);  // no wide loads
            check_special_values(type);
        }
    });
}
