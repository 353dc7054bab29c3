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

    std::int64_t source_room = 0;   // tokens of all sources
    std::size_t state = 0;          // bytes that steps read and write
    std::int32_t* first = nullptr;  // of these

    Room(std::int64_t vocabulary, const SearchSettings& settings,
         const std::vector<BeamSource>& sources, const BeamRoom& least) {
        describe(vocabulary, settings, sources, least);
        Arrays counted(nullptr);
        arrange(counted, settings);
        memory = std::make_unique<Memory>(counted.bytes());
        Arrays given(static_cast<char*>(memory->data()));
        arrange(given, settings);
        begin(sources, nullptr);
    }

    void describe(std::int64_t vocabulary, const SearchSettings& settings,
                  const std::vector<BeamSource>& sources, const BeamRoom& least) {
        step.sources = std::ssize(sources);
        step.beams = settings.num_beams;
        step.vocabulary = vocabulary;
        step.room = least.longest;
        for (const BeamSource& source : sources) {
            step.room = std::max(step.room, source.longest);
            source_room += std::max(least.source, std::ssize(source.source));
        }
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

    void arrange(Arrays& arrays, const SearchSettings& settings) {
        const auto list = [&](TokenList& given, const Tokens& tokens) {
            arrays.take(given.tokens, tokens);
            given.count = std::ssize(tokens);
        };
        list(step.ends, settings.eos_token_id);
        list(step.suppressed, settings.suppress_tokens);
        list(step.suppressed_at_first, settings.begin_suppress_tokens);
        list(step.forced_first, settings.forced_bos_token_id);
        list(step.forced_last, settings.forced_eos_token_id);
        Ragged words;
        const auto ends = [&](Token token) {
            return std::find(settings.eos_token_id.begin(), settings.eos_token_id.end(), token) !=
                   settings.eos_token_id.end();
        };
        for (const Tokens& word : settings.bad_words_ids)
            if (word.size() != 1 || !ends(word[0])) words.add(word);
        std::vector<float> divisors;
        for (std::int64_t length = 0; length <= step.room; ++length)
            divisors.push_back(static_cast<float>(std::pow(length, settings.length_penalty)));
        arrays.take(step.bad_words, words.tokens);
        arrays.take(step.bad_word_offsets, words.offsets);
        step.bad_word_count = std::ssize(words.offsets) - 1;
        arrays.take(step.divisors, divisors);

        const std::int64_t b = step.sources, rows = b * step.beams, written = rows * step.room;
        const std::int64_t words32 = (step.vocabulary + 31) / 32;
        arrays.take(step.limits, 3 * b);
        arrays.take(step.source_tokens, source_room);
        arrays.take(step.source_offsets, b + 1);
        const std::size_t before = arrays.bytes();
        arrays.take(step.done, b + 1);
        if (step.done) step.wrong_row = step.done + b;
        arrays.take(step.length, b);
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
        arrays.take(step.tokens, rows);
        arrays.take(step.parents, rows);
        first = step.done;
        state = arrays.bytes() - before;
    }

    // All beams begin alike: only the first goes on at first.
    void begin(const std::vector<BeamSource>& sources, Stream stream) {
        const std::int64_t rows = step.sources * step.beams;
        std::vector<std::int64_t> limits;
        std::vector<float> scores(rows, out);
        Tokens lines(rows * step.room);
        Ragged texts;
        for (std::int64_t b = 0; b < step.sources; ++b) {
            const BeamSource& source = sources[b];
            limits.insert(limits.end(),
                          {std::ssize(source.prompt), source.longest, source.shortest});
            scores[b * step.beams] = 0.0f;
            std::copy(source.prompt.begin(), source.prompt.end(),
                      lines.begin() + b * step.beams * step.room);
            texts.add(source.source);
        }
        fill(first, 0, state, stream);
        write(step.limits, limits, stream);
        write(step.source_tokens, texts.tokens, stream);
        write(step.source_offsets, texts.offsets, stream);
        write(step.scores, scores, stream);
        write(step.line_tokens, lines, stream);
        forget_wrong(stream);
        synchronize(stream);
    }

    template <class T>
    static void write(T* to, const std::vector<T>& values, Stream stream) {
        copy(to, values.data(), values.size() * sizeof(T), stream);
    }

    void forget_wrong(Stream stream) {
        fill(step.wrong_row, no_wrong_row & 0xFF, sizeof(*step.wrong_row), stream);
    }

    template <class T>
    std::vector<T> read(const T* from, std::int64_t count, Stream stream) const {
        std::vector<T> values(count);
        copy(values.data(), from, count * sizeof(T), stream);
        return values;
    }

    std::vector<std::vector<Hypothesis>> found(std::int64_t from, std::int64_t count,
                                               std::int64_t most, Stream stream) const {
        return step.greedy ? written(from, count, stream) : ended(from, count, most, stream);
    }

    // What greedy search has come to of so many sources.
    std::vector<std::vector<Hypothesis>> written(std::int64_t from, std::int64_t count,
                                                 Stream stream) const {
        const auto done = read(step.done + from, count, stream);
        const auto lengths = read(step.length + from, count, stream);
        const auto limits = read(step.limits + 3 * from, 3 * count, stream);
        const auto tokens = read(step.line_tokens + from * step.room, count * step.room, stream);
        const auto logs = read(step.line_logs + from * step.room, count * step.room, stream);
        std::vector<std::vector<Hypothesis>> every(count);
        for (std::int64_t b = 0; b < count; ++b) {
            if (!done[b]) continue;
            const auto first = tokens.begin() + b * step.room + limits[3 * b];
            const auto log = logs.begin() + b * step.room;
            Hypothesis only{{first, first + lengths[b]}, 0.0, {log, log + lengths[b]}};
            only.score = std::accumulate(only.logs.begin(), only.logs.end(), 0.0);
            every[b].push_back(std::move(only));
        }
        return every;
    }

    // The hypotheses of so many sources that have ended, at most so many of each.
    std::vector<std::vector<Hypothesis>> ended(std::int64_t from, std::int64_t count,
                                               std::int64_t most, Stream stream) const {
        const std::int64_t first = from * step.beams, rows = count * step.beams;
        const auto counts = read(step.ended_count + from, count, stream);
        const auto order = read(step.ended_order + first, rows, stream);
        const auto real = read(step.ended_real + first, rows, stream);
        const auto lengths = read(step.ended_length + first, rows, stream);
        const auto scores = read(step.ended_scores + first, rows, stream);
        const auto tokens = read(step.ended_tokens + first * step.room, rows * step.room, stream);
        const auto logs = read(step.ended_logs + first * step.room, rows * step.room, stream);
        std::vector<std::vector<Hypothesis>> every(count);
        for (std::int64_t b = 0; b < count; ++b)
            for (std::int32_t i = 0; i < counts[b]; ++i) {
                const std::int64_t at = b * step.beams + order[b * step.beams + i];
                if (!real[at] || std::ssize(every[b]) == most) continue;
                const auto token = tokens.begin() + at * step.room;
                const auto log = logs.begin() + at * step.room;
                every[b].push_back(
                    {{token, token + lengths[at]}, scores[at], {log, log + lengths[at]}});
            }
        return every;
    }
};

Beams::Beams(std::int64_t vocabulary, const SearchSettings& settings,
             const std::vector<BeamSource>& sources, const BeamRoom& room)
    : settings_(settings) {
    check(vocabulary, settings, sources);
    room_ = std::make_unique<Room>(vocabulary, settings, sources, room);
}

Beams::~Beams() = default;

void Beams::begin(const std::vector<BeamSource>& sources, Stream stream) {
    const BeamStep& step = room_->step;
    check(step.vocabulary, settings_, sources);
    if (std::ssize(sources) != step.sources)
        refuse("there are ", sources.size(), " sources, not ", step.sources);
    std::int64_t tokens = 0;
    for (const BeamSource& source : sources) {
        if (source.longest > step.room)
            refuse("there is room for ", step.room, " tokens, not for ", source.longest);
        tokens += std::ssize(source.source);
    }
    if (tokens > room_->source_room)
        refuse("there is room for ", room_->source_room, " tokens of sources, not for ", tokens);
    room_->begin(sources, stream);
    begun_ = false;
}

std::int64_t Beams::rows() const { return begun_ ? every_row() : room_->step.sources; }

std::int64_t Beams::every_row() const { return room_->step.sources * room_->step.beams; }

void Beams::step(const void* logits, Type type, std::int64_t rows, std::int64_t columns,
                 Stream stream) {
    if (rows != this->rows() || columns != room_->step.vocabulary)
        refuse("logits are (", rows, ", ", columns, "), not (", this->rows(), ", ",
               room_->step.vocabulary, ")");
    record(logits, type, !begun_, stream);
    begun_ = true;
}

void Beams::record(const void* logits, Type type, bool first, Stream stream) {
    room_->step.first = first;
    beam_step(room_->step, logits, type, stream);
}

std::int64_t* Beams::tokens() const { return room_->step.tokens; }

std::int64_t* Beams::parents() const { return room_->step.parents; }

std::int32_t* Beams::flags() const { return room_->step.done; }

void Beams::check_logits(Stream stream) {
    const std::int32_t row = room_->read(room_->step.wrong_row, 1, stream)[0];
    if (row == no_wrong_row) return;
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
    if (source < 0 || source >= room_->step.sources)
        refuse("there is no source ", source, " among ", room_->step.sources);
    check_logits(stream);
    return room_->found(source, 1, settings_.num_return_sequences, stream)[0];
}

std::vector<std::vector<Hypothesis>> Beams::found(Stream stream) {
    check_logits(stream);
    return room_->found(0, room_->step.sources, settings_.num_return_sequences, stream);
}

}  // namespace headway::cuda
