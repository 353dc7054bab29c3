// Padding, for Python.
#include "headway/pad.hpp"

#include "arrays.hpp"
#include "headway/ragged.hpp"
#include "register.hpp"

namespace headway {
namespace {

constexpr auto pad_doc =
    "Ragged token ids (N) to a padded batch (B, T), T = length, with value in the empty places:\n"
    "on the right, or on the left. offsets (B + 1) start at 0 and end at N; row b is\n"
    "ids[offsets[b]:offsets[b + 1]]. ValueError for wrong offsets and rows longer than length.";
constexpr auto mask_doc =
    "1 for tokens and 0 for padding (B, T), T = length, for the ragged batch that offsets (B + 1)\n"
    "describe. ValueError for wrong offsets and rows longer than length.";
constexpr auto unpad_doc =
    "The tokens' vectors of a padded batch (B, T, D) end to end (N, D), without the padding: pad\n"
    "undone. ValueError for wrong offsets and rows longer than T.";

template <class Index>
Result<std::int64_t, 2> pad_numpy(const Given<std::int32_t, 1>& ids, const Given<Index, 1>& offsets,
                                  std::int64_t length, std::int64_t value, bool left) {
    const auto starts = as_int64(offsets);
    auto out = without_gil([&] { return pad(as_span(ids), starts, length, value, left); });
    return as_numpy<2>(std::move(out), {row_count(starts), length});
}

template <class Index>
Result<std::int64_t, 2> mask_numpy(const Given<Index, 1>& offsets, std::int64_t length, bool left) {
    const auto starts = as_int64(offsets);
    auto out = without_gil([&] { return mask(starts, length, left); });
    return as_numpy<2>(std::move(out), {row_count(starts), length});
}

template <class Index>
Result<float, 2> unpad_numpy(const Given<float, 3>& padded, const Given<Index, 1>& offsets,
                             bool left) {
    const auto starts = as_int64(offsets);
    auto out = without_gil([&] { return unpad(as_hidden(padded), starts, left); });
    return as_numpy<2>(std::move(out), {starts.back(), std::int64_t(padded.shape(2))});
}

template <class Index>
void register_for(nb::module_& module) {
    const auto offsets = nb::arg("offsets").noconvert();
    module.def("pad", &pad_numpy<Index>, nb::arg("ids").noconvert(), offsets, nb::arg("length"),
               nb::arg("value"), nb::arg("left") = false, pad_doc);
    module.def("mask", &mask_numpy<Index>, offsets, nb::arg("length"), nb::arg("left") = false,
               mask_doc);
    module.def("unpad", &unpad_numpy<Index>, nb::arg("padded").noconvert(), offsets,
               nb::arg("left") = false, unpad_doc);
}

}  // namespace

void register_pad(nb::module_& module) {
    register_for<std::int32_t>(module);
    register_for<std::int64_t>(module);
}

}  // namespace headway
