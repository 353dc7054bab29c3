// The search for spans, for Python.
#include "headway/spans.hpp"

#include <nanobind/stl/pair.h>

#include "arrays.hpp"
#include "register.hpp"

namespace headway {
namespace {

constexpr auto spans_doc =
    "The k best spans of each question: scores (Q, k), descending, -inf where there are no more,\n"
    "and places (Q, k, 2), first character and character after the last. start, end (N): scores\n"
    "of tokens as an answer's first and last; first, after (N): their characters, first -1 where\n"
    "none can be; windows (R + 1): offsets of the windows' tokens; questions (Q + 1): offsets of\n"
    "the questions' windows. longest: tokens in a span. The same characters count once; of equal\n"
    "scores the span that begins first, then the one that ends first. Unless overlap, none shares\n"
    "a character with a better one. ValueError for NaN, infinite scores and wrong shapes.";

using Floats = Given<float, 1>;
using Places = Given<std::int64_t, 1>;

std::pair<Result<double, 2>, Result<std::int64_t, 3>> spans_numpy(
    const Floats& start, const Floats& end, const Places& first, const Places& after,
    const Places& windows, const Places& questions, std::int64_t k, std::int64_t longest,
    bool overlap) {
    const SpanScores given{as_span(start), as_span(end),     as_span(first),
                           as_span(after), as_span(windows), as_span(questions)};
    Spans out = without_gil([&] { return spans(given, k, longest, overlap); });
    const auto count = std::int64_t(questions.size()) - 1;
    return {as_numpy<2>(std::move(out.scores), {count, k}),
            as_numpy<3>(std::move(out.places), {count, k, 2})};
}

}  // namespace

void register_spans(nb::module_& module) {
    module.def("spans", &spans_numpy, nb::arg("start").noconvert(), nb::arg("end").noconvert(),
               nb::arg("first").noconvert(), nb::arg("after").noconvert(),
               nb::arg("windows").noconvert(), nb::arg("questions").noconvert(), nb::arg("k"),
               nb::arg("longest"), nb::arg("overlap") = true, spans_doc);
}

}  // namespace headway
