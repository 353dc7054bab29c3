// Decoding of tags, for Python.
#include "headway/tags.hpp"

#include "arrays.hpp"
#include "register.hpp"

namespace headway {
namespace {

constexpr auto tags_doc =
    "The best allowed tags (W) of words with scores (W, C), logarithms of probabilities up to a\n"
    "constant for each word. offsets (B + 1): text b is words offsets[b] to offsets[b + 1].\n"
    "follows (C, C): whether the second tag may stand right after the first; begins, ends (C):\n"
    "whether a text may begin or end with it. Each word's first best tag wherever these are an\n"
    "allowed sequence, and where there is no allowed one; of equal sums the lowest last tag, then\n"
    "the lowest before it, and so on. ValueError for NaN, +inf and wrong shapes.";
constexpr auto stretch_chances_doc =
    "For each stretch (S, 2) of words, first and after the last, in order, inside one text: the\n"
    "probability (S), among the allowed sequences, of the chosen tags (W) there, not followed by\n"
    "a tag that continues (C, C) the last of them. Others as of tags. 0 in a text without an\n"
    "allowed sequence. ValueError for NaN, +inf, wrong shapes, tags and stretches.";

using Bools = Given<bool, 1>;
using BoolTable = Given<bool, 2>;

void check_table(const char* name, const BoolTable& table, std::size_t count) {
    if (table.shape(0) != count || table.shape(1) != count)
        throw std::invalid_argument(std::string(name) + " must have a row and a column per tag");
}

Grammar as_grammar(const BoolTable& follows, const Bools& begins, const Bools& ends) {
    check_table("follows", follows, begins.size());
    if (ends.size() != begins.size())
        throw std::invalid_argument("begins and ends must have one entry per tag");
    return {follows.data(), begins.data(), ends.data(), std::int64_t(begins.size())};
}

Result<std::int32_t, 1> tags_numpy(const Given<float, 2>& scores,
                                   const Given<std::int64_t, 1>& offsets, const BoolTable& follows,
                                   const Bools& begins, const Bools& ends) {
    const Matrix view = as_matrix(scores);
    const Grammar grammar = as_grammar(follows, begins, ends);
    auto out = without_gil([&] { return tags(view, as_span(offsets), grammar); });
    return as_numpy<1>(std::move(out), {view.rows});
}

Result<double, 1> stretch_chances_numpy(const Given<float, 2>& scores,
                                        const Given<std::int64_t, 1>& offsets,
                                        const BoolTable& follows, const Bools& begins,
                                        const Bools& ends, const BoolTable& continues,
                                        const Given<std::int32_t, 1>& chosen,
                                        const Given<std::int64_t, 2>& stretches) {
    const Matrix view = as_matrix(scores);
    const Grammar grammar = as_grammar(follows, begins, ends);
    check_table("continues", continues, begins.size());
    if (stretches.shape(1) != 2) throw std::invalid_argument("stretches must have two columns");
    std::vector<Stretch> wanted(stretches.shape(0));
    for (std::size_t s = 0; s < wanted.size(); ++s)
        wanted[s] = {stretches.data()[2 * s], stretches.data()[2 * s + 1]};
    auto out = without_gil([&] {
        return stretch_chances(view, as_span(offsets), grammar, continues.data(), as_span(chosen),
                               wanted);
    });
    return as_numpy<1>(std::move(out), {std::int64_t(wanted.size())});
}

}  // namespace

void register_tags(nb::module_& module) {
    const auto scores = nb::arg("scores").noconvert(), offsets = nb::arg("offsets").noconvert();
    const auto follows = nb::arg("follows").noconvert(), begins = nb::arg("begins").noconvert();
    const auto ends = nb::arg("ends").noconvert();
    module.def("tags", &tags_numpy, scores, offsets, follows, begins, ends, tags_doc);
    module.def("stretch_chances", &stretch_chances_numpy, scores, offsets, follows, begins, ends,
               nb::arg("continues").noconvert(), nb::arg("chosen").noconvert(),
               nb::arg("stretches").noconvert(), stretch_chances_doc);
}

}  // namespace headway
