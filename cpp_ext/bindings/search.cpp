// The search for next tokens, for Python.
#include "headway/search.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "arrays.hpp"
#include "register.hpp"
#include "search_settings.hpp"

namespace headway {
namespace {

constexpr auto class_doc =
    "The search for the next tokens of many sentences at once, fed with logits. Sentences stand "
    "in\n"
    "the order in which they entered. To be used by one thread at a time.";
constexpr auto add_doc =
    "A sentence enters, at any time; returns its key. prompt (T): what the decoder has read.\n"
    "settings: a headway.core.search.Search. longest, shortest: tokens of prompt and continuation\n"
    "together, at most and before an end token may come. source (S): what the encoder has read;\n"
    "without an encoder the prompt. texts: for stop_strings. ValueError for what makes no sense.";
constexpr auto texts_doc =
    "What each token adds to a text, in UTF-8, for stop strings; made once for a tokenizer.";
constexpr auto rows_doc =
    "How many rows of logits the next advance() takes: 1 for a sentence that has just entered, "
    "then\n"
    "num_beams, without those of groups that are done, or samples that are not finished.";
constexpr auto advance_doc =
    "Choose the next tokens by logits (rows, V), which are only read. allowed (rows, V / 32): a "
    "bit\n"
    "for each token that may come, the lowest first; all may if None. Greedy search and samples "
    "end\n"
    "where none may. ValueError, and nothing is changed, for other shapes, NaN and +inf; -inf\n"
    "entries are welcome.";
constexpr auto tokens_doc = "The next token (R) of each row of the sentences that go on.";
constexpr auto parents_doc =
    "The row of the last logits (R) that each row of the sentences that go on follows. As many as\n"
    "possible follow the row of their own place in the sentence.";
constexpr auto finished_doc = "Keys of the sentences that the last advance() ended.";
constexpr auto found_doc =
    "What has ended of a sentence so far, best first: tokens after the prompt, score, log\n"
    "probability of each token; at the end none where the settings forbid all. IndexError for an\n"
    "unknown key.";
constexpr auto settled_doc =
    "Tokens after the prompt that the best hypothesis is sure to begin with. IndexError for an\n"
    "unknown key.";
constexpr auto end_doc =
    "End a sentence now: what goes on is found as it stands, as if the longest were reached; its\n"
    "rows are left out from now on. IndexError for an unknown key.";
constexpr auto drop_doc =
    "Forget a sentence, finished or not; its rows are left out from now on. IndexError for an\n"
    "unknown key.";

using Found = std::tuple<Tokens, double, std::vector<float>>;

TokenBits as_bits(const Given<std::uint32_t, 2>& given) {
    return {given.data(), std::int64_t(given.shape(0)), std::int64_t(given.shape(1))};
}

Tokens as_tokens(const Given<std::int64_t, 1>& given) {
    return {given.data(), given.data() + given.size()};
}

std::int64_t add(Searcher& searcher, const Given<std::int64_t, 1>& prompt,
                 const nb::object& settings, std::int64_t longest, std::int64_t shortest,
                 const std::optional<Given<std::int64_t, 1>>& source,
                 const std::shared_ptr<TokenTexts>& texts) {
    return searcher.add({as_tokens(prompt), as_tokens(source.value_or(prompt)),
                         as_settings(settings), longest, shortest, texts});
}

template <class T>
Result<std::int64_t, 1> as_result(const std::vector<T>& values) {
    auto out = allocate<std::int64_t>(std::ssize(values), 1);
    std::copy(values.begin(), values.end(), out.get());
    return as_numpy<1>(std::move(out), {std::ssize(values)});
}

std::vector<Found> found(const Searcher& searcher, std::int64_t key) {
    std::vector<Found> every;
    for (Hypothesis& h : searcher.found(key))
        every.emplace_back(std::move(h.tokens), h.score, std::move(h.logs));
    return every;
}

}  // namespace

void register_search(nb::module_& module) {
    nb::class_<TokenTexts>(module, "TokenTexts", texts_doc)
        .def(
            "__init__",
            [](TokenTexts* made, const std::vector<nb::bytes>& texts) {
                new (made) TokenTexts;
                for (const nb::bytes& text : texts)
                    made->bytes.emplace_back(text.c_str(), text.size());
            },
            nb::arg("texts"));
    nb::class_<Searcher>(module, "Searcher", class_doc)
        .def(nb::init<std::int64_t>(), nb::arg("vocabulary"))
        .def("add", &add, nb::arg("prompt"), nb::arg("settings"), nb::arg("longest"),
             nb::arg("shortest"), nb::arg("source") = nb::none(), nb::arg("texts") = nb::none(),
             add_doc)
        .def_prop_ro("rows", &Searcher::rows, rows_doc)
        .def(
            "advance",
            [](Searcher& searcher, const Given<float, 2>& logits,
               const std::optional<Given<std::uint32_t, 2>>& allowed) {
                const Matrix view = as_matrix(logits);
                std::optional<TokenBits> bits;
                if (allowed) bits = as_bits(*allowed);
                without_gil([&] { searcher.advance(view, bits ? &*bits : nullptr); });
            },
            nb::arg("logits").noconvert(), nb::arg("allowed").noconvert() = nb::none(), advance_doc)
        .def_prop_ro(
            "tokens", [](const Searcher& searcher) { return as_result(searcher.tokens()); },
            nb::rv_policy::move, tokens_doc)
        .def_prop_ro(
            "parents", [](const Searcher& searcher) { return as_result(searcher.parents()); },
            nb::rv_policy::move, parents_doc)
        .def_prop_ro("finished", &Searcher::finished, finished_doc)
        .def("found", &found, nb::arg("key"), found_doc)
        .def("settled", &Searcher::settled, nb::arg("key"), settled_doc)
        .def("end", &Searcher::end, nb::arg("key"), end_doc)
        .def("drop", &Searcher::drop, nb::arg("key"), drop_doc);
}

}  // namespace headway
