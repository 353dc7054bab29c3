// The search for spans, for Python.
#include "headway/cuda/spans.hpp"

#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto spans_doc =
    "The k best spans of each question, as headway.cpp_ext.spans finds them: out_scores (Q,\n"
    "k), descending, -inf where there are no more, and out_places (Q, k, 2), first character\n"
    "and character after the last. start, end, first, after (N), windows (R + 1), questions\n"
    "(Q + 1) and longest as there; a token with NaN or an infinite score begins and ends no\n"
    "span. ValueError for wrong shapes and types, and unless 1 <= k <= 256 and longest is at\n"
    "least 1.";

using Places = Given<std::int64_t, 1>;

void spans_python(const GivenNumbers<1>& start, const GivenNumbers<1>& end, const Places& first,
                  const Places& after, const Places& windows, const Places& questions,
                  std::int64_t longest, const Out<double, 2>& out_scores,
                  const Out<std::int64_t, 3>& out_places, bool overlap, std::uintptr_t stream) {
    const auto tokens = std::int64_t(start.shape(0)), k = std::int64_t(out_scores.shape(1));
    const std::int64_t count = rows_of("questions", questions);
    rows_of("windows", windows);
    check_shape("end", end, {tokens});
    check_shape("first", first, {tokens});
    check_shape("after", after, {tokens});
    check_shape("out_scores", out_scores, {count, k});
    check_shape("out_places", out_places, {count, k, 2});
    if (k < 1 || k > most_spans) refuse("k is ", k, ": it must be 1 to ", most_spans);
    if (longest < 1) refuse("longest is ", longest, ": it must be at least 1");
    const Type type = type_of("start", start);
    if (type_of("end", end) != type) refuse("start and end must be of one type");
    spans({start.data(), end.data(), type, first.data(), after.data(), windows.data(),
           questions.data(), count, k, longest, overlap, out_scores.data(), out_places.data()},
          as_stream(stream));
}

}  // namespace

void register_spans(nb::module_& module) {
    module.def("spans", &spans_python, nb::arg("start").noconvert(), nb::arg("end").noconvert(),
               nb::arg("first").noconvert(), nb::arg("after").noconvert(),
               nb::arg("windows").noconvert(), nb::arg("questions").noconvert(), nb::arg("longest"),
               nb::arg("out_scores").noconvert(), nb::arg("out_places").noconvert(),
               nb::arg("overlap") = true, nb::arg("stream") = 0, spans_doc);
}

}  // namespace headway::cuda
