// Beam search on the GPU against the search on the processor, fed with the same logits.
#include <algorithm>
#include <numeric>

#include "cuda_check.hpp"
#include "headway/cuda/beams.hpp"
#include "headway/search.hpp"

namespace {

using headway::EarlyStopping;
using headway::SearchSettings;
using headway::Token;
using headway::Tokens;
using headway::cuda::Beams;
using headway::cuda::BeamSource;

// exp() of all but the greatest is 0 where there shall be ties, so that log probabilities have no
// rounding at all.
std::vector<float> logits_after(const Tokens& tokens, std::int64_t vocabulary, bool ties) {
    std::mt19937 random(std::accumulate(tokens.begin(), tokens.end(), 7u,
                                        [](unsigned a, Token t) { return 31 * a + t; }));
    std::vector<float> out(vocabulary);
    for (float& x : out) {
        x = std::normal_distribution<float>(0.0f, 2.0f)(random);
        if (ties) x = x > 0 ? -128.0f : x > -2 ? -256.0f : -infinity;
        if (random() % 8 == 0) x = -infinity;
    }
    if (ties) out[random() % vocabulary] = 0.0f;
    return out;
}

Tokens random_tokens(std::int64_t least, std::int64_t most, std::int64_t vocabulary) {
    Tokens out(random_int(least, most));
    for (Token& token : out) token = static_cast<Token>(random_int(0, vocabulary - 1));
    return out;
}

SearchSettings random_settings(std::int64_t vocabulary, std::int64_t beams) {
    const auto maybe = [] { return random_int(0, 2) == 0; };
    SearchSettings settings;
    settings.num_beams = settings.num_return_sequences = beams;
    settings.length_penalty = static_cast<double>(random_int(-1, 2));
    settings.early_stopping = static_cast<EarlyStopping>(random_int(0, 2));
    if (maybe()) settings.repetition_penalty = random_int(0, 1) == 1 ? 1.5 : 0.7;
    if (maybe()) settings.no_repeat_ngram_size = random_int(1, 3);
    if (maybe()) settings.encoder_no_repeat_ngram_size = random_int(1, 3);
    if (maybe())
        for (int i = 0; i < 3; ++i)
            settings.bad_words_ids.push_back(random_tokens(1, 2, vocabulary));
    if (maybe()) settings.suppress_tokens = random_tokens(1, 3, vocabulary);
    if (maybe()) settings.begin_suppress_tokens = random_tokens(1, 3, vocabulary);
    if (maybe()) settings.forced_bos_token_id = random_tokens(1, 1, vocabulary);
    if (maybe()) settings.forced_eos_token_id = random_tokens(1, 2, vocabulary);
    settings.renormalize_logits = maybe();
    settings.eos_token_id = random_tokens(0, 2, vocabulary);
    return settings;
}

std::vector<BeamSource> random_sources(std::int64_t count, std::int64_t vocabulary) {
    std::vector<BeamSource> sources;
    for (std::int64_t b = 0; b < count; ++b) {
        // a token beyond the vocabulary is known to no rule
        BeamSource source{random_tokens(1, 3, vocabulary + 1), random_tokens(0, 5, vocabulary), 0,
                          0};
        source.longest = std::ssize(source.prompt) + random_int(1, 7);
        source.shortest = std::ssize(source.prompt) + random_int(0, 3);
        sources.push_back(source);
    }
    return sources;
}

std::vector<float> logits_of(const std::vector<Tokens>& rows, std::int64_t vocabulary, bool ties) {
    std::vector<float> logits;
    for (const Tokens& row : rows)
        for (const float x : logits_after(row, vocabulary, ties)) logits.push_back(x);
    return logits;
}

using Found = std::vector<std::vector<headway::Hypothesis>>;

Found on_processor(const std::vector<BeamSource>& sources, const SearchSettings& settings,
                   std::int64_t vocabulary, bool ties) {
    headway::Searcher searcher(vocabulary);
    std::vector<std::int64_t> keys;
    std::vector<Tokens> rows;
    for (const BeamSource& source : sources) {
        keys.push_back(searcher.add(
            {source.prompt, source.source, settings, source.longest, source.shortest}));
        rows.push_back(source.prompt);
    }
    while (searcher.rows() > 0) {
        const auto logits = logits_of(rows, vocabulary, ties);
        searcher.advance({logits.data(), std::ssize(rows), vocabulary});
        std::vector<Tokens> next;
        const Tokens tokens = searcher.tokens();
        for (const std::int64_t parent : searcher.parents()) {
            next.push_back(rows[parent]);
            next.back().push_back(tokens[next.size() - 1]);
        }
        rows = next;
    }
    Found every;
    for (const std::int64_t key : keys) every.push_back(searcher.found(key));
    return every;
}

// recorded: by steps that keep no account, and flags in place of done().
Found searched(Beams& beams, const std::vector<BeamSource>& sources, std::int64_t vocabulary,
               bool ties, Type type, bool recorded) {
    std::vector<Tokens> rows;
    for (const BeamSource& source : sources) rows.push_back(source.prompt);
    const auto all_done = [&] {
        const auto done = beams.done(nullptr);
        std::vector<std::int32_t> flags(sources.size() + 1);
        headway::cuda::copy(flags.data(), beams.flags(), flags.size() * sizeof(std::int32_t),
                            nullptr);
        CHECK(std::equal(done.begin(), done.end(), flags.begin()));
        CHECK(flags.back() == headway::cuda::no_wrong_row);
        return std::count(done.begin(), done.end(), false) == 0;
    };
    for (bool first = true; !all_done(); first = false) {
        Numbers logits(logits_of(rows, vocabulary, ties), type, 1);
        if (recorded) {
            beams.record(logits.data(), type, first, nullptr);
        } else {
            CHECK(beams.rows() == std::ssize(rows));
            beams.step(logits.data(), type, std::ssize(rows), vocabulary, nullptr);
        }
        std::vector<std::int64_t> tokens(beams.every_row()), parents(beams.every_row());
        const std::size_t bytes = tokens.size() * sizeof(std::int64_t);
        headway::cuda::copy(tokens.data(), beams.tokens(), bytes, nullptr);
        headway::cuda::copy(parents.data(), beams.parents(), bytes, nullptr);
        std::vector<Tokens> next;
        for (std::size_t r = 0; r < tokens.size(); ++r) {
            next.push_back(rows[parents[r]]);
            next.back().push_back(static_cast<Token>(tokens[r]));
        }
        rows = next;
    }
    const Found every = beams.found(nullptr);
    for (std::int64_t b = 0; b < std::ssize(sources); ++b) {
        const auto own = beams.found(b, nullptr);
        CHECK(std::ranges::equal(own, every[b], {}, &headway::Hypothesis::tokens,
                                 &headway::Hypothesis::tokens));
    }
    return every;
}

Found on_gpu(const std::vector<BeamSource>& sources, const SearchSettings& settings,
             std::int64_t vocabulary, bool ties, Type type) {
    Beams beams(vocabulary, settings, sources);
    return searched(beams, sources, vocabulary, ties, type, false);
}

// Also -inf, of a token that may not come.
bool same(double got, double want) { return got == want || close(got, want, 1e-5, 1e-6); }

void check_same(const Found& got, const Found& want) {
    for (std::size_t b = 0; b < want.size(); ++b) {
        CHECK(got[b].size() == want[b].size());
        for (std::size_t h = 0; h < std::min(got[b].size(), want[b].size()); ++h) {
            CHECK(got[b][h].tokens == want[b][h].tokens);
            CHECK(same(got[b][h].score, want[b][h].score));
            CHECK(got[b][h].logs.size() == want[b][h].logs.size());
            for (std::size_t t = 0; t < got[b][h].logs.size(); ++t)
                CHECK(same(got[b][h].logs[t], want[b][h].logs[t]));
        }
    }
}

void check_search(std::int64_t vocabulary, std::int64_t beams, std::int64_t count, bool ties) {
    const SearchSettings settings = random_settings(vocabulary, beams);
    const auto sources = random_sources(count, vocabulary);
    const Found want = on_processor(sources, settings, vocabulary, ties);
    check_same(on_gpu(sources, settings, vocabulary, ties, Type::f32), want);
    // These values are the same in 16 bits.
    if (ties) check_same(on_gpu(sources, settings, vocabulary, ties, Type::f16), want);
    if (ties) check_same(on_gpu(sources, settings, vocabulary, ties, Type::bf16), want);
}

// Wrong logits change nothing, and are told of when something is asked.
void check_wrong_logits(bool at_first, float wrong) {
    SearchSettings settings;
    settings.num_beams = 2;
    const std::vector<BeamSource> sources{{{1}, {}, 4, 0}, {{2}, {}, 4, 0}};
    Beams beams(5, settings, sources), plain(5, settings, sources);
    const auto logits = random_floats(4 * 5);
    auto spoilt = logits;
    spoilt[5 + 3] = wrong;
    Numbers good(logits, Type::f32), bad(spoilt, Type::f32);
    const auto both = [&] {
        beams.step(good.data(), Type::f32, beams.rows(), 5, nullptr);
        plain.step(good.data(), Type::f32, plain.rows(), 5, nullptr);
    };
    if (!at_first) both();
    const std::int64_t rows = beams.rows();
    beams.step(bad.data(), Type::f32, rows, 5, nullptr);
    beams.step(good.data(), Type::f32, beams.rows(), 5, nullptr);  // does nothing
    CHECK_REFUSES(beams.done(nullptr), "row 1 of " + std::to_string(rows) + " holds NaN or +inf");
    CHECK(beams.rows() == rows);
    for (int i = at_first ? 0 : 1; i < 3; ++i) both();
    CHECK((beams.done(nullptr) == std::vector<bool>{true, true}));
    for (const int b : {0, 1}) {
        const auto got = beams.found(b, nullptr), want = plain.found(b, nullptr);
        CHECK(got.size() == 1 && want.size() == 1 && got[0].tokens == want[0].tokens);
    }
}

void check_errors() {
    const auto refused = [](auto change) {
        SearchSettings settings;
        settings.num_beams = 4;
        change(settings);
        Beams(9, settings, {{{1}, {}, 4, 0}});
    };
    CHECK_REFUSES((refused([](auto& s) { s.do_sample = true; }), 0), "do_sample is not");
    CHECK_REFUSES((refused([](auto& s) { s.num_beam_groups = 2; }), 0), "num_beam_groups is not");
    CHECK_REFUSES((refused([](auto& s) { s.force_words_ids = {{{1}}}; }), 0), "force_words_ids is");
    CHECK_REFUSES((refused([](auto& s) { s.stop_strings = {"a"}; }), 0), "stop_strings is not");
    CHECK_REFUSES((refused([](auto& s) { s.num_beams = 129; }), 0), "too many for the GPU");
    CHECK_REFUSES((refused([](auto& s) { s.num_beams = 1000; }), 0), "too many for the GPU");
    CHECK_REFUSES((refused([](auto& s) { s.suppress_tokens = {9}; }), 0), "no token 9 among 9");
    Beams beams(9, {}, {{{1}, {}, 4, 0}});
    CHECK_REFUSES(beams.step(nullptr, Type::f32, 2, 9, nullptr), "logits are (2, 9), not (1, 9)");
    CHECK_REFUSES(beams.found(1, nullptr), "there is no source 1 among 1");
    CHECK(beams.found(0, nullptr).empty());
    CHECK_REFUSES((beams.begin({}, nullptr), 0), "there are 0 sources, not 1");
    CHECK_REFUSES((beams.begin({{{1}, {}, 5, 0}}, nullptr), 0), "room for 4 tokens, not for 5");
    CHECK_REFUSES((beams.begin({{{1}, {2}, 4, 0}}, nullptr), 0), "room for 0 tokens of sources");
    CHECK_REFUSES((beams.begin({{{}, {}, 4, 0}}, nullptr), 0), "the prompt has no tokens");
}

// One object for search after search, of sources that are longer and shorter than the first ones.
void check_begun_again(std::int64_t vocabulary, std::int64_t beams) {
    const SearchSettings settings = random_settings(vocabulary, beams);
    const auto first = random_sources(2, vocabulary);
    Beams kept(vocabulary, settings, first, {10, 5});
    for (int i = 0; i < 3; ++i) {
        const auto sources = i == 0 ? first : random_sources(2, vocabulary);
        if (i > 0) kept.begin(sources, nullptr);
        check_same(searched(kept, sources, vocabulary, i == 1, Type::f32, i == 2),
                   on_processor(sources, settings, vocabulary, i == 1));
    }
}

}  // namespace

int main() {
    return on_device([] {
        for (int i = 0; i < 10; ++i)
            check_search(random_int(2, 40), i % 2 == 0 ? random_int(2, 5) : 1 + i % 4,
                         random_int(1, 3), i % 3 == 0);
        check_search(9001, 3, 2, false);
        check_search(9001, 1, 2, false);
        for (const bool at_first : {true, false})
            for (const float wrong : {nan_value, infinity}) check_wrong_logits(at_first, wrong);
        for (const std::int64_t beams : {1, 3}) check_begun_again(random_int(8, 40), beams);
        check_errors();
    });
}
