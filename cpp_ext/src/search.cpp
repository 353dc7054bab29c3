// Sentences that enter, take their rows of logits, and leave.
#include "headway/search.hpp"

#include <limits>

#include "dispatch.hpp"
#include "refuse.hpp"
#include "search_beams.hpp"
#include "search_greedy.hpp"
#include "search_groups.hpp"
#include "search_samples.hpp"

namespace headway {
namespace {

void check_tokens(const char* name, const Tokens& tokens, std::int64_t vocabulary) {
    for (const Token token : tokens)
        if (token < 0 || token >= vocabulary)
            refuse(name, ": there is no token ", token, " among ", vocabulary);
}

void check(const SearchRequest& request, std::int64_t vocabulary) {
    const SearchSettings& settings = request.settings;
    if (request.prompt.empty()) refuse("the prompt has no tokens");
    for (const Token token : request.prompt)
        if (token < 0) refuse("the prompt holds ", token);
    if (request.longest <= std::ssize(request.prompt))
        refuse("longest is ", request.longest, ": the prompt has ", request.prompt.size());
    if (settings.num_beams < 1) refuse("num_beams is ", settings.num_beams);
    if (settings.num_beam_groups < 1 || settings.num_beams % settings.num_beam_groups != 0)
        refuse("num_beam_groups is ", settings.num_beam_groups, " of ", settings.num_beams);
    if (settings.num_beam_groups > 1 && settings.do_sample)
        refuse("num_beam_groups is ", settings.num_beam_groups, " with do_sample");
    if (settings.num_return_sequences < 1)
        refuse("num_return_sequences is ", settings.num_return_sequences);
    if (!(settings.repetition_penalty > 0))
        refuse("repetition_penalty is ", settings.repetition_penalty);
    if (!(settings.diversity_penalty >= 0))
        refuse("diversity_penalty is ", settings.diversity_penalty);
    if (settings.do_sample) {
        if (!(settings.temperature >= 1e-6)) refuse("temperature is ", settings.temperature);
        if (settings.top_k < 0) refuse("top_k is ", settings.top_k);
        if (!(settings.top_p > 0 && settings.top_p <= 1)) refuse("top_p is ", settings.top_p);
        if (!(settings.min_p >= 0 && settings.min_p <= 1)) refuse("min_p is ", settings.min_p);
        if (!(settings.typical_p > 0 && settings.typical_p <= 1))
            refuse("typical_p is ", settings.typical_p);
    }
    for (const Tokens& word : settings.bad_words_ids) {
        if (word.empty()) refuse("bad_words_ids holds a sequence without tokens");
        check_tokens("bad_words_ids", word, vocabulary);
    }
    check_tokens("suppress_tokens", settings.suppress_tokens, vocabulary);
    check_tokens("begin_suppress_tokens", settings.begin_suppress_tokens, vocabulary);
    check_tokens("forced_bos_token_id", settings.forced_bos_token_id, vocabulary);
    check_tokens("forced_eos_token_id", settings.forced_eos_token_id, vocabulary);
    check_tokens("eos_token_id", settings.eos_token_id, vocabulary);
    if (!settings.force_words_ids.empty() && (settings.num_beams < 2 || settings.do_sample))
        refuse("force_words_ids need beams without do_sample");
    for (const std::vector<Tokens>& alternatives : settings.force_words_ids) {
        if (alternatives.empty()) refuse("force_words_ids holds a phrase without alternatives");
        for (const Tokens& tokens : alternatives) {
            if (tokens.empty()) refuse("force_words_ids holds a phrase without tokens");
            check_tokens("force_words_ids", tokens, vocabulary);
        }
    }
    for (const std::string& string : settings.stop_strings)
        if (string.empty()) refuse("stop_strings holds an empty one");
    if (!settings.stop_strings.empty() && !request.texts)
        refuse("stop_strings need the tokens' texts");
}

std::unique_ptr<Sentence> sentence_of(SearchRequest request) {
    const SearchSettings& settings = request.settings;
    if (settings.num_beam_groups > 1 || !settings.force_words_ids.empty())
        return std::make_unique<Groups>(std::move(request));
    if (settings.num_beams > 1) return std::make_unique<Beams>(std::move(request));
    if (settings.do_sample) return std::make_unique<Samples>(std::move(request));
    return std::make_unique<Greedy>(std::move(request));
}

}  // namespace

struct Searcher::Scratch {
    explicit Scratch(std::int64_t vocabulary)
        : scores(vocabulary), blocks((vocabulary + search_block - 1) / search_block) {}

    // Measures every row before any sentence goes on.
    void measure(const Matrix& logits, const TokenBits* allowed) {
        const auto& use = in_use<SearchKernels>(HEADWAY_EVERY_LEVEL(search_kernels));
        rows.resize(logits.rows);
        peaks.resize(logits.rows * blocks);
        for (std::int64_t r = 0; r < logits.rows; ++r) {
            float* own = peaks.data() + r * blocks;
            const RowSum row = use.sum(logits.row(r), logits.columns, own);
            if (row.max == -never) refuse("row ", r, " of ", logits.rows, " holds +inf");
            if (row.nan) refuse("row ", r, " of ", logits.rows, " holds NaN");
            rows[r] = {logits.row(r), own, {row.max, row.sum}, allowed ? allowed->row(r) : nullptr};
        }
    }

    Scores scores;
    Best best;
    Sampler sampler;
    std::size_t blocks;
    std::vector<Row> rows;
    std::vector<float> peaks;
};

Searcher::Searcher(std::int64_t vocabulary) : vocabulary_(vocabulary) {
    if (vocabulary < 1 || vocabulary > std::numeric_limits<Token>::max())
        refuse("the vocabulary has ", vocabulary, " tokens");
    scratch_ = std::make_unique<Scratch>(vocabulary);
}

Searcher::~Searcher() = default;

std::int64_t Searcher::add(SearchRequest request) {
    check(request, vocabulary_);
    auto sentence = sentence_of(std::move(request));
    running_.push_back({next_key_, 0, sentence.get()});
    sentences_.emplace(next_key_, std::move(sentence));
    return next_key_++;
}

std::int64_t Searcher::rows() const {
    std::int64_t count = 0;
    for (const Running& running : running_) count += running.sentence->width();
    return count;
}

void Searcher::advance(const Matrix& logits, const TokenBits* allowed) {
    if (logits.columns != vocabulary_ || logits.rows != rows())
        refuse("logits are (", logits.rows, ", ", logits.columns, "), not (", rows(), ", ",
               vocabulary_, ")");
    const std::int64_t words = (vocabulary_ + 31) / 32;
    if (allowed && (allowed->columns != words || allowed->rows != logits.rows))
        refuse("allowed is (", allowed->rows, ", ", allowed->columns, "), not (", logits.rows, ", ",
               words, ")");
    scratch_->measure(logits, allowed);
    finished_.clear();
    std::int64_t row = 0;
    for (Running& running : running_) {
        const std::int64_t width = running.sentence->width();
        Step step{std::span(scratch_->rows).subspan(row, width), scratch_->scores, scratch_->best,
                  scratch_->sampler};
        running.sentence->advance(step);
        running.first = row;
        row += width;
        if (running.sentence->done()) finished_.push_back(running.key);
    }
    std::erase_if(running_, [](const Running& running) { return running.sentence->done(); });
}

Tokens Searcher::tokens() const {
    Tokens every;
    for (const Running& running : running_)
        for (const Next& next : running.sentence->next()) every.push_back(next.token);
    return every;
}

std::vector<std::int64_t> Searcher::parents() const {
    std::vector<std::int64_t> every;
    for (const Running& running : running_)
        for (const Next& next : running.sentence->next())
            every.push_back(running.first + next.parent);
    return every;
}

std::vector<Hypothesis> Searcher::found(std::int64_t key) const {
    return sentences_.at(key)->found();
}

Tokens Searcher::settled(std::int64_t key) const { return sentences_.at(key)->settled(); }

void Searcher::end(std::int64_t key) {
    sentences_.at(key)->end();
    std::erase_if(running_, [key](const Running& running) { return running.key == key; });
}

void Searcher::drop(std::int64_t key) {
    end(key);
    std::erase(finished_, key);
    sentences_.erase(key);
}

}  // namespace headway
