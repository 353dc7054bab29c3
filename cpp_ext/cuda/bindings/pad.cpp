// Padding, for Python.
#include "headway/cuda/pad.hpp"

#include <nanobind/stl/optional.h>

#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto pad_ids_doc =
    "Ragged token ids (N) to what a model is fed with (B, T), in one launch: ids with value\n"
    "in the empty places, on the right or on the left; mask, 1 for tokens and 0 for padding;\n"
    "token types, 0 where none are given. offsets (B + 1): row b is ids[offsets[b]:offsets[b\n"
    "+ 1]]; what they hold is not checked. Of a longer row than T the first T tokens are\n"
    "taken, with left the last. ValueError for wrong shapes.";
constexpr auto pad_doc =
    "Vectors of tokens (N, D) to a padded batch (B, T, D), with zeros in the padding. Others\n"
    "as of pad_ids. ValueError for wrong shapes and types.";
constexpr auto unpad_doc =
    "The tokens' vectors of a padded batch (B, T, D) end to end (N, D): pad undone. Others as\n"
    "of pad_ids. ValueError for wrong shapes and types.";

using Ids = Given<std::int32_t, 1>;
using Offsets = Given<std::int64_t, 1>;
using OutIds = Out<std::int64_t, 2>;

void pad_ids_python(const Ids& ids, const Offsets& offsets, std::int64_t value,
                    const OutIds& out_ids, const std::optional<OutIds>& out_mask,
                    const std::optional<OutIds>& out_types, const std::optional<Ids>& types,
                    bool left, std::uintptr_t stream) {
    const std::int64_t batch = rows_of("offsets", offsets);
    const auto length = std::int64_t(out_ids.shape(1));
    check_shape("out_ids", out_ids, {batch, length});
    if (out_mask) check_shape("out_mask", *out_mask, {batch, length});
    if (out_types) check_shape("out_types", *out_types, {batch, length});
    if (types) check_shape("types", *types, {std::int64_t(ids.shape(0))});
    pad_ids({ids.data(), types ? types->data() : nullptr, offsets.data(), batch, length, value,
             left, out_ids.data(), out_mask ? out_mask->data() : nullptr,
             out_types ? out_types->data() : nullptr},
            as_stream(stream));
}

template <class Flat, class Padded>
MoveRows described(const Flat& flat, const Offsets& offsets, const Padded& padded, bool left) {
    const auto batch = rows_of("offsets", offsets), width = std::int64_t(flat.shape(1));
    const auto length = std::int64_t(padded.shape(1));
    check_shape("the padded batch", padded, {batch, length, width});
    if (type_of("the vectors", flat) != type_of("the padded batch", padded))
        refuse("the vectors and the padded batch must be of one type");
    return {nullptr, nullptr, offsets.data(), batch, length, width * std::int64_t(flat.itemsize()),
            left};
}

void pad_python(const GivenNumbers<2>& hidden, const Offsets& offsets, const OutNumbers<3>& out,
                bool left, std::uintptr_t stream) {
    MoveRows move = described(hidden, offsets, out, left);
    move.from = hidden.data();
    move.to = out.data();
    pad(move, as_stream(stream));
}

void unpad_python(const GivenNumbers<3>& padded, const Offsets& offsets, const OutNumbers<2>& out,
                  bool left, std::uintptr_t stream) {
    MoveRows move = described(out, offsets, padded, left);
    move.from = padded.data();
    move.to = out.data();
    unpad(move, as_stream(stream));
}

}  // namespace

void register_pad(nb::module_& module) {
    const auto offsets = nb::arg("offsets").noconvert();
    module.def("pad_ids", &pad_ids_python, nb::arg("ids").noconvert(), offsets, nb::arg("value"),
               nb::arg("out_ids").noconvert(), nb::arg("out_mask").noconvert() = nb::none(),
               nb::arg("out_types").noconvert() = nb::none(),
               nb::arg("types").noconvert() = nb::none(), nb::arg("left") = false,
               nb::arg("stream") = 0, pad_ids_doc);
    module.def("pad", &pad_python, nb::arg("hidden").noconvert(), offsets,
               nb::arg("out").noconvert(), nb::arg("left") = false, nb::arg("stream") = 0, pad_doc);
    module.def("unpad", &unpad_python, nb::arg("padded").noconvert(), offsets,
               nb::arg("out").noconvert(), nb::arg("left") = false, nb::arg("stream") = 0,
               unpad_doc);
}

}  // namespace headway::cuda
