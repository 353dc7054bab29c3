// Beam search on the GPU, for Python.
#include "headway/cuda/beams.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include "../../bindings/search_settings.hpp"
#include "arrays.hpp"
#include "register.hpp"

namespace headway::cuda {
namespace {

constexpr auto class_doc =
    "Beam search on the GPU for many sources at once: given the same float32 log\n"
    "probabilities, the tokens are those of headway.cpp_ext.Searcher. Sources begin together\n"
    "and keep their rows to the end; with one beam the search is greedy. All calls on one\n"
    "stream, by one thread at a time.";
constexpr auto init_doc =
    "prompts: for each source the tokens that the decoder has read. settings: a\n"
    "headway.core.search.Search for all. longest, shortest: for each, tokens of prompt and\n"
    "continuation together, at most and before an end token may come. sources: what the\n"
    "encoder has read; without an encoder the prompts. ValueError for what makes no sense,\n"
    "for do_sample, groups of beams, phrases and stop strings, and unless num_beams * max(2,\n"
    "1 + end tokens) is at most 256. room: tokens of prompt and continuation, and of a source,\n"
    "that there shall be memory for, for sources of a later begin().";
constexpr auto begin_doc =
    "Begin anew in the same memory, with equally many sources and the same settings. Waits for\n"
    "the stream. ValueError as of the constructor, and for what there is no room for.";
constexpr auto rows_doc =
    "How many rows of logits the next step() takes: one for each source at first, then\n"
    "num_beams.";
constexpr auto step_doc =
    "Choose the next tokens by logits (rows, V). NaN and +inf in them stop the search: the\n"
    "step changes nothing, nor do steps after it, until done() or found() has told.\n"
    "ValueError for wrong shapes and types.";
constexpr auto record_doc =
    "step() for work that is captured and done again: no account is kept of steps, so that first\n"
    "tells whether it is the first one. logits: an address in the GPU's memory, of rows of V\n"
    "numbers of that type (float32, float16, bfloat16). ValueError for an unknown type.";
constexpr auto tokens_doc =
    "The next token of each row (B * K), 0 where its source is done; on the GPU, written anew\n"
    "by each step.";
constexpr auto parents_doc =
    "The row of the last logits that each row follows (B * K), itself where its source is\n"
    "done; on the GPU, written anew by each step. As many as possible follow themselves.";
constexpr auto addresses_doc =
    "Where tokens and parents lie in the GPU's memory, and flags, int32 (B + 1): whether each\n"
    "source has ended, and the row of wrong logits, or no_wrong_row where there was none.";
constexpr auto done_doc =
    "Whether each source has ended. Waits for the stream. ValueError for NaN and +inf in\n"
    "logits.";
constexpr auto found_doc =
    "What has ended of a source so far, best first: tokens after the prompt, score, log\n"
    "probability of each token. Waits for the stream. ValueError as of done(), and for an\n"
    "unknown source.";
constexpr auto found_all_doc = "found() of every source, with few copies.";

using Found = std::tuple<Tokens, double, std::vector<float>>;
using Row = nb::ndarray<std::int64_t, nb::ndim<1>, nb::device::cuda>;

class PythonBeams {
  public:
    PythonBeams(std::int64_t vocabulary, const std::vector<Tokens>& prompts,
                const nb::object& settings, const std::vector<std::int64_t>& longest,
                const std::vector<std::int64_t>& shortest,
                const std::optional<std::vector<Tokens>>& sources,
                std::pair<std::int64_t, std::int64_t> room)
        : beams_(vocabulary, as_settings(settings),
                 joined(prompts, longest, shortest, sources ? *sources : prompts),
                 {room.first, room.second}),
          device_(current_device()) {}

    void begin(const std::vector<Tokens>& prompts, const std::vector<std::int64_t>& longest,
               const std::vector<std::int64_t>& shortest,
               const std::optional<std::vector<Tokens>>& sources, std::uintptr_t stream) {
        beams_.begin(joined(prompts, longest, shortest, sources ? *sources : prompts),
                     as_stream(stream));
    }

    std::int64_t rows() const { return beams_.rows(); }
    void step(const GivenNumbers<2>& logits, std::uintptr_t stream) {
        beams_.step(logits.data(), type_of("logits", logits), std::int64_t(logits.shape(0)),
                    std::int64_t(logits.shape(1)), as_stream(stream));
    }
    void record(std::uintptr_t logits, const std::string& type, bool first, std::uintptr_t stream) {
        beams_.record(reinterpret_cast<const void*>(logits), type_named(type), first,
                      as_stream(stream));
    }
    std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t> addresses() const {
        return {reinterpret_cast<std::uintptr_t>(beams_.tokens()),
                reinterpret_cast<std::uintptr_t>(beams_.parents()),
                reinterpret_cast<std::uintptr_t>(beams_.flags())};
    }
    Row tokens() const { return row(beams_.tokens()); }
    Row parents() const { return row(beams_.parents()); }
    std::vector<bool> done(std::uintptr_t stream) {
        nb::gil_scoped_release released;
        return beams_.done(as_stream(stream));
    }
    std::vector<Found> found(std::int64_t source, std::uintptr_t stream) {
        nb::gil_scoped_release released;
        return told(beams_.found(source, as_stream(stream)));
    }
    std::vector<std::vector<Found>> found_all(std::uintptr_t stream) {
        nb::gil_scoped_release released;
        std::vector<std::vector<Found>> every;
        for (auto& source : beams_.found(as_stream(stream)))
            every.push_back(told(std::move(source)));
        return every;
    }

  private:
    static std::vector<Found> told(std::vector<Hypothesis> found) {
        std::vector<Found> every;
        for (Hypothesis& h : found)
            every.emplace_back(std::move(h.tokens), h.score, std::move(h.logs));
        return every;
    }
    static Type type_named(const std::string& name) {
        if (name == "float32") return Type::f32;
        if (name == "float16") return Type::f16;
        if (name == "bfloat16") return Type::bf16;
        refuse("type is \"", name, "\": it must be float32, float16 or bfloat16");
    }
    static std::vector<BeamSource> joined(const std::vector<Tokens>& prompts,
                                          const std::vector<std::int64_t>& longest,
                                          const std::vector<std::int64_t>& shortest,
                                          const std::vector<Tokens>& sources) {
        const std::size_t count = prompts.size();
        if (longest.size() != count || shortest.size() != count || sources.size() != count)
            refuse("there are ", count, " prompts, ", longest.size(), " longest, ", shortest.size(),
                   " shortest and ", sources.size(), " sources");
        std::vector<BeamSource> out;
        for (std::size_t b = 0; b < count; ++b)
            out.push_back({prompts[b], sources[b], longest[b], shortest[b]});
        return out;
    }
    Row row(std::int64_t* data) const {
        const auto size = static_cast<std::size_t>(beams_.every_row());
        return Row(data, {size}, nb::find(this), {}, nb::dtype<std::int64_t>(),
                   nb::device::cuda::value, device_);
    }

    Beams beams_;
    int device_;
};

}  // namespace

void register_beams(nb::module_& module) {
    nb::class_<PythonBeams>(module, "Beams", class_doc)
        .def(nb::init<std::int64_t, const std::vector<Tokens>&, const nb::object&,
                      const std::vector<std::int64_t>&, const std::vector<std::int64_t>&,
                      const std::optional<std::vector<Tokens>>&,
                      std::pair<std::int64_t, std::int64_t>>(),
             nb::arg("vocabulary"), nb::arg("prompts"), nb::arg("settings"), nb::arg("longest"),
             nb::arg("shortest"), nb::arg("sources") = nb::none(),
             nb::arg("room") = std::pair<std::int64_t, std::int64_t>(0, 0), init_doc)
        .def("begin", &PythonBeams::begin, nb::arg("prompts"), nb::arg("longest"),
             nb::arg("shortest"), nb::arg("sources") = nb::none(), nb::arg("stream") = 0, begin_doc)
        .def_prop_ro("rows", &PythonBeams::rows, rows_doc)
        .def("step", &PythonBeams::step, nb::arg("logits").noconvert(), nb::arg("stream") = 0,
             step_doc)
        .def("record", &PythonBeams::record, nb::arg("logits"), nb::arg("type"), nb::arg("first"),
             nb::arg("stream") = 0, record_doc)
        .def_prop_ro("addresses", &PythonBeams::addresses, addresses_doc)
        .def_prop_ro("tokens", &PythonBeams::tokens, nb::rv_policy::reference, tokens_doc)
        .def_prop_ro("parents", &PythonBeams::parents, nb::rv_policy::reference, parents_doc)
        .def("done", &PythonBeams::done, nb::arg("stream") = 0, done_doc)
        .def("found", &PythonBeams::found, nb::arg("source"), nb::arg("stream") = 0, found_doc)
        .def("found_all", &PythonBeams::found_all, nb::arg("stream") = 0, found_all_doc);
    module.attr("no_wrong_row") = no_wrong_row;
}

}  // namespace headway::cuda
