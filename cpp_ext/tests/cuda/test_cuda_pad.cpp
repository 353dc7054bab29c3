// Padding on the GPU against padding on the processor.
#include "cuda_check.hpp"
#include "headway/cuda/pad.hpp"
#include "headway/pad.hpp"

namespace {

namespace cuda = headway::cuda;

void check_ids(std::int64_t batch, std::int64_t longest, std::int64_t extra, bool left,
               bool types) {
    const auto offsets = random_offsets(batch, 0, longest);
    std::vector<std::int32_t> ids(offsets.back()), kinds(offsets.back());
    for (auto& id : ids) id = static_cast<std::int32_t>(random_int(0, 1 << 30));
    for (auto& kind : kinds) kind = static_cast<std::int32_t>(random_int(0, 1));
    const std::int64_t length = longest + extra, size = batch * length;
    Device<std::int32_t> given(ids), given_types(kinds);
    Device<std::int64_t> starts(offsets), out(size), mask(size), out_types(size);
    cuda::pad_ids({given.data(), types ? given_types.data() : nullptr, starts.data(), batch, length,
                   -7, left, out.data(), mask.data(), out_types.data()},
                  nullptr);
    const auto want = headway::pad(ids, offsets, length, -7, left);
    const auto want_mask = headway::mask(offsets, length, left);
    const auto want_types = headway::pad(kinds, offsets, length, 0, left);
    const auto got = out.read(), got_mask = mask.read(), got_types = out_types.read();
    for (std::int64_t i = 0; i < size; ++i) {
        CHECK(got[i] == want[i]);
        CHECK(got_mask[i] == want_mask[i]);
        CHECK(got_types[i] == (types ? want_types[i] : 0));
    }
}

void check_only_ids() {
    const std::vector<std::int32_t> ids{5, 6, 7};
    Device<std::int32_t> given(ids);
    Device<std::int64_t> starts({0, 1, 3}), out(6);
    cuda::pad_ids(
        {given.data(), nullptr, starts.data(), 2, 3, 0, false, out.data(), nullptr, nullptr},
        nullptr);
    CHECK((out.read() == std::vector<std::int64_t>{5, 0, 0, 6, 7, 0}));
}

// What is too long is cut where the padding would be, and nothing else is written.
void check_too_long(bool left) {
    Device<std::int32_t> given(std::vector<std::int32_t>{1, 2, 3, 4});
    Device<std::int64_t> starts({0, 3, 4}), out(4);
    cuda::pad_ids(
        {given.data(), nullptr, starts.data(), 2, 2, 0, left, out.data(), nullptr, nullptr},
        nullptr);
    const std::vector<std::int64_t> right{1, 2, 4, 0}, lefts{2, 3, 0, 4};
    CHECK(out.read() == (left ? lefts : right));
}

// There and back: vectors of 4-byte and 2-byte numbers, at any place.
template <class T>
void check_hidden(std::int64_t batch, std::int64_t longest, std::int64_t width, std::size_t shift,
                  bool left) {
    const auto offsets = random_offsets(batch, 0, longest);
    std::vector<T> flat(offsets.back() * width);
    for (T& x : flat) x = static_cast<T>(random_int(1, 30000));
    const std::int64_t length = longest + 1;
    Device<T> given(flat, shift), padded(batch * length * width, shift), back(flat.size(), shift);
    Device<std::int64_t> starts(offsets);
    const auto row_bytes = static_cast<std::int64_t>(width * sizeof(T));
    cuda::pad({given.data(), padded.data(), starts.data(), batch, length, row_bytes, left},
              nullptr);
    cuda::unpad({padded.data(), back.data(), starts.data(), batch, length, row_bytes, left},
                nullptr);
    CHECK(back.read() == flat);
    const auto mask = headway::mask(offsets, length, left);
    const auto got = padded.read();
    std::size_t next = 0;
    for (std::int64_t i = 0; i < batch * length * width; ++i)
        CHECK(got[i] == (mask[i / width] ? flat[next++] : T{}));
}

}  // namespace

int main() {
    return on_device([] {
        for (const bool left : {false, true}) {
            for (const bool types : {false, true}) {
                check_ids(0, 3, 0, left, types);
                check_ids(3, 0, 1, left, types);
                check_ids(4, 300, 0, left, types);
                check_ids(5, 7, 3, left, types);
            }
            check_too_long(left);
            for (const std::int64_t width : {0, 1, 6, 8, 33, 64})
                for (const std::size_t shift : {0, 1}) {
                    check_hidden<std::uint32_t>(4, 9, width, shift, left);
                    check_hidden<std::uint16_t>(3, 9, width, shift, left);
                }
        }
        check_only_ids();
    });
}
