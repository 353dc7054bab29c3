// Beam search: its memory, and what is known without a GPU.
#include "headway/cuda/beams.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "beam_step.hpp"
#include "headway/cuda/device.hpp"
#include "refuse.hpp"

namespace headway::cuda {
namespace {

void check(std::int64_t vocabulary, const SearchSettings& settings,
           const std::vector<BeamSource>& sources) {
    if (settings.do_sample) refuse("do_sample is not for the GPU");
    if (settings.num_beam_groups != 1) refuse("num_beam_groups is not for the GPU");
    if (!settings.force_words_ids.empty()) refuse("force_words_ids is not for the GPU");
    if (!settings.stop_strings.empty()) refuse("stop_strings is not for the GPU");
    Searcher searcher(vocabulary);
    for (const BeamSource& source : sources)
        searcher.add({source.prompt, source.source, settings, source.longest, source.shortest});
    if (settings.num_beams > most_candidates || vocabulary > 0xFFFFFFFF / settings.num_beams)
        refuse("num_beams is ", settings.num_beams, ": too many for the GPU");
}

std::int64_t wanted(const SearchSettings& settings) {
    if (settings.num_beams == 1) return 1;
    const auto ends = std::ssize(settings.eos_token_id);
    const std::int64_t count = settings.num_beams * std::max<std::int64_t>(2, 1 + ends);
    if (count > most_candidates)
        refuse("num_beams is ", settings.num_beams, " with ", ends,
               " end tokens: too many for the GPU");
    return count;
}

// Arrays of one allocation, each at a multiple of 256 bytes. Places are counted before there is
// memory, and handed out afterwards.
class Arrays {
  public:
    explicit Arrays(char* memory) : memory_(memory) {}

    template <class T>
    void take(T*& array, std::int64_t count) {
        array = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
        bytes_ += (count * sizeof(T) + 255) / 256 * 256;
    }
    // What the host knows.
    template <class T>
    void take(const T*& array, const std::vector<T>& values) {
        T* own = nullptr;
        take(own, std::ssize(values));
        array = own;
        if (memory_ && !values.empty())
            copy(own, values.data(), values.size() * sizeof(T), nullptr);
    }
    std::size_t bytes() const { return bytes_; }

  private:
    char* memory_;
    std::size_t bytes_ = 0;
};

// Sequences end to end, with their offsets.
struct Ragged {
    Tokens tokens;
    std::vector<std::int64_t> offsets{0};

    void add(const Tokens& more) {
        tokens.insert(tokens.end(), more.begin(), more.end());
        offsets.push_back(std::ssize(tokens));
    }
};

}  // namespace

struct Beams::Room {
    BeamStep step{};
    std::unique_ptr<Memory> memory;

    Room(std::int64_t vocabulary, const SearchSettings& settings,
         const std::vector<BeamSource>& sources) {
        describe(vocabulary, settings, sources);
        Arrays counted(nullptr);
        arrange(counted, settings, sources);
        memory = std::make_unique<Memory>(counted.bytes());
        fill(memory->data(), 0, counted.bytes(), nullptr);
        Arrays given(static_cast<char*>(memory->data()));
        arrange(given, settings, sources);
        begin(sources);
    }

    void describe(std::int64_t vocabulary, const SearchSettings& settings,
                  const std::vector<BeamSource>& sources) {
        step.sources = std::ssize(sources);
        step.beams = settings.num_beams;
        step.vocabulary = vocabulary;
        for (const BeamSource& source : sources) step.room = std::max(step.room, source.longest);
        step.parts = (vocabulary + part - 1) / part;
        step.wanted = wanted(settings);
        step.greedy = settings.num_beams == 1;
        step.renormalize = settings.renormalize_logits;
        step.stop_when_full = settings.early_stopping == EarlyStopping::yes;
        step.by_longest =
            settings.early_stopping == EarlyStopping::never && settings.length_penalty > 0;
        step.repetition_penalty = static_cast<float>(settings.repetition_penalty);
        step.ngram = std::max<std::int64_t>(0, settings.no_repeat_ngram_size);
        step.source_ngram = std::max<std::int64_t>(0, settings.encoder_no_repeat_ngram_size);
    }

    void arrange(Arrays& arrays, const SearchSettings& settings,
                 const std::vector<BeamSource>& sources) {
        const auto list = [&](TokenList& given, const Tokens& tokens) {
            arrays.take(given.tokens, tokens);
            given.count = std::ssize(tokens);
        };
        list(step.ends, settings.eos_token_id);
        list(step.suppressed, settings.suppress_tokens);
        list(step.suppressed_at_first, settings.begin_suppress_tokens);
        list(step.forced_first, settings.forced_bos_token_id);
        list(step.forced_last, settings.forced_eos_token_id);
        Ragged words, texts;
        const auto ends = [&](Token token) {
            return std::find(settings.eos_token_id.begin(), settings.eos_token_id.end(), token) !=
                   settings.eos_token_id.end();
        };
        for (const Tokens& word : settings.bad_words_ids)
            if (word.size() != 1 || !ends(word[0])) words.add(word);
        std::vector<std::int64_t> limits;
        for (const BeamSource& source : sources) {
            texts.add(source.source);
            limits.insert(limits.end(),
                          {std::ssize(source.prompt), source.longest, source.shortest});
        }
        std::vector<float> divisors;
        for (std::int64_t length = 0; length <= step.room; ++length)
            divisors.push_back(static_cast<float>(std::pow(length, settings.length_penalty)));
        arrays.take(step.bad_words, words.tokens);
        arrays.take(step.bad_word_offsets, words.offsets);
        step.bad_word_count = std::ssize(words.offsets) - 1;
        arrays.take(step.divisors, divisors);
        arrays.take(step.limits, limits);
        arrays.take(step.source_tokens, texts.tokens);
        arrays.take(step.source_offsets, texts.offsets);

        const std::int64_t b = step.sources, rows = b * step.beams, written = rows * step.room;
        const std::int64_t words32 = (step.vocabulary + 31) / 32;
        arrays.take(step.length, b);
        arrays.take(step.done, b);
        arrays.take(step.scores, rows);
        arrays.take(step.lines, rows);
        arrays.take(step.line_tokens, written);
        arrays.take(step.line_logs, written);
        arrays.take(step.ended_count, b);
        arrays.take(step.ended_order, rows);
        arrays.take(step.ended_scores, rows);
        arrays.take(step.ended_real, rows);
        arrays.take(step.ended_length, rows);
        arrays.take(step.ended_tokens, written);
        arrays.take(step.ended_logs, written);
        arrays.take(step.marked, rows * words32);
        arrays.take(step.banned, rows * words32);
        arrays.take(step.forced, rows);
        arrays.take(step.masses, rows * step.parts);
        arrays.take(step.rules_masses, rows * step.parts);
        arrays.take(step.shifts, rows);
        arrays.take(step.candidates, rows * step.parts * step.wanted);
        arrays.take(step.wrong_row, 1);
        arrays.take(step.tokens, rows);
        arrays.take(step.parents, rows);
    }

    // All beams begin alike: only the first goes on at first.
    void begin(const std::vector<BeamSource>& sources) {
        std::vector<float> scores(step.sources * step.beams, out);
        for (std::int64_t b = 0; b < step.sources; ++b) {
            scores[b * step.beams] = 0.0f;
            const Tokens& prompt = sources[b].prompt;
            copy(step.line_tokens + b * step.beams * step.room, prompt.data(),
                 prompt.size() * sizeof(Token), nullptr);
        }
        copy(step.scores, scores.data(), scores.size() * sizeof(float), nullptr);
        forget_wrong(nullptr);
        synchronize(nullptr);
    }

    void forget_wrong(Stream stream) {
        fill(step.wrong_row, no_row & 0xFF, sizeof(*step.wrong_row), stream);
    }

    template <class T>
    std::vector<T> read(const T* from, std::int64_t count, Stream stream) const {
        std::vector<T> values(count);
        copy(values.data(), from, count * sizeof(T), stream);
        return values;
    }
};

Beams::Beams(std::int64_t vocabulary, const SearchSettings& settings,
             const std::vector<BeamSource>& sources)
    : wanted_(settings.num_return_sequences) {
    check(vocabulary, settings, sources);
    room_ = std::make_unique<Room>(vocabulary, settings, sources);
}

Beams::~Beams() = default;

std::int64_t Beams::rows() const { return begun_ ? every_row() : room_->step.sources; }

std::int64_t Beams::every_row() const { return room_->step.sources * room_->step.beams; }

void Beams::step(const void* logits, Type type, std::int64_t rows, std::int64_t columns,
                 Stream stream) {
    if (rows != this->rows() || columns != room_->step.vocabulary)
        refuse("logits are (", rows, ", ", columns, "), not (", this->rows(), ", ",
               room_->step.vocabulary, ")");
    room_->step.first = !begun_;
    beam_step(room_->step, logits, type, stream);
    begun_ = true;
}

std::int64_t* Beams::tokens() const { return room_->step.tokens; }

std::int64_t* Beams::parents() const { return room_->step.parents; }

void Beams::check_logits(Stream stream) {
    const std::int32_t row = room_->read(room_->step.wrong_row, 1, stream)[0];
    if (row == no_row) return;
    const auto lengths = room_->read(room_->step.length, room_->step.sources, stream);
    begun_ = std::any_of(lengths.begin(), lengths.end(), [](std::int32_t n) { return n > 0; });
    room_->forget_wrong(stream);
    refuse("row ", row, " of ", rows(), " holds NaN or +inf");
}

std::vector<bool> Beams::done(Stream stream) {
    check_logits(stream);
    const auto done = room_->read(room_->step.done, room_->step.sources, stream);
    return {done.begin(), done.end()};
}

std::vector<Hypothesis> Beams::found(std::int64_t source, Stream stream) {
    const BeamStep& step = room_->step;
    if (source < 0 || source >= step.sources)
        refuse("there is no source ", source, " among ", step.sources);
    check_logits(stream);
    const std::int64_t first = source * step.beams;
    std::vector<Hypothesis> every;
    if (step.greedy) {
        if (room_->read(step.done + source, 1, stream)[0] == 0) return every;
        const auto length = room_->read(step.length + source, 1, stream)[0];
        const auto prompt = room_->read(step.limits + 3 * source, 1, stream)[0];
        Hypothesis only{room_->read(step.line_tokens + source * step.room + prompt, length, stream),
                        0.0, room_->read(step.line_logs + source * step.room, length, stream)};
        only.score = std::accumulate(only.logs.begin(), only.logs.end(), 0.0);
        every.push_back(std::move(only));
        return every;
    }
    const auto count = room_->read(step.ended_count + source, 1, stream)[0];
    for (const std::int32_t slot : room_->read(step.ended_order + first, count, stream)) {
        const std::int64_t at = first + slot;
        if (room_->read(step.ended_real + at, 1, stream)[0] == 0) continue;
        if (std::ssize(every) == wanted_) break;
        const auto length = room_->read(step.ended_length + at, 1, stream)[0];
        every.push_back({room_->read(step.ended_tokens + at * step.room, length, stream),
                         room_->read(step.ended_scores + at, 1, stream)[0],
                         room_->read(step.ended_logs + at * step.room, length, stream)});
    }
    return every;
}

}  // namespace headway::cuda
