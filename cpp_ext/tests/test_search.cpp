// The search at every level: its scans against the standard library, its sentences alone against
// together, what it refuses.
#include "headway/search.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "dispatch.hpp"
#include "philox.hpp"
#include "search_scores.hpp"
#include "search_stop.hpp"

namespace {

using headway::Candidate;
using headway::SearchRequest;
using headway::Token;
using headway::Tokens;

constexpr float infinity = std::numeric_limits<float>::infinity();

struct Measured {
    std::vector<float> logits, peaks;
    headway::Row row;
};

// A few values only, if there shall be ties.
Measured random_row(std::int64_t n, bool ties) {
    Measured out{random_floats(n, 3.0f), std::vector<float>(n / headway::search_block + 1), {}};
    if (ties)
        for (float& x : out.logits) x = std::max(-3.0f, std::round(x));
    for (float& x : out.logits)
        if (random_int(0, 9) == 0) x = -infinity;
    const auto& use = headway::in_use<headway::SearchKernels>(HEADWAY_EVERY_LEVEL(search_kernels));
    const auto sum = use.sum(out.logits.data(), n, out.peaks.data());
    out.row = {out.logits.data(), out.peaks.data(), {sum.max, sum.sum}};
    return out;
}

double log_sum(const std::vector<float>& x) {
    double sum = 0.0;
    for (const float score : x) sum += std::exp(double(score));
    return std::log(sum);
}

// Rules change some tokens of two rows; the best of both, as if all were sorted.
void check_best(std::int64_t n, bool ties, bool force, std::size_t count) {
    headway::Scores scores(n);
    headway::Best best;
    best.begin(count);
    std::vector<Candidate> want;
    for (std::int32_t beam = 0; beam < 2; ++beam) {
        const Measured given = random_row(n, ties);
        const float before = static_cast<float>(-2 * random_int(0, 1));
        std::vector<float> plain = given.logits;
        scores.begin(given.row, false);
        if (force) {
            std::fill(plain.begin(), plain.end(), -infinity);
            plain[n / 2] = 0.0f;
            scores.force(std::vector<Token>{static_cast<Token>(n / 2)});
        }
        for (int i = 0; i < 5; ++i) {
            const auto token = static_cast<Token>(random_int(0, n - 1));
            plain[token] = i % 2 ? -infinity : 1.0f;
            scores.set(token, plain[token]);
        }
        scores.offer(before, beam, best);
        for (Token t = 0; t < n; ++t) {
            CHECK(scores.at(t) == plain[t]);
            if (plain[t] > -infinity) want.push_back({plain[t] + before, plain[t], beam, t});
        }
        if (*std::max_element(plain.begin(), plain.end()) == -infinity) continue;
        const headway::Mass mass = scores.mass();
        CHECK_CLOSE(mass.max + std::log(mass.sum), log_sum(plain));
        scores.normalize();
        for (Token t = 0; t < n; ++t)
            if (plain[t] > -infinity) CHECK_CLOSE(scores.at(t), plain[t] - log_sum(plain));
    }
    std::stable_sort(want.begin(), want.end(),
                     [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    want.resize(std::min(want.size(), count));
    const auto got = best.sorted();
    CHECK(got.size() == want.size());
    for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
        CHECK(got[i].score == want[i].score && got[i].log == want[i].log);
        CHECK(got[i].beam == want[i].beam && got[i].token == want[i].token);
    }
}

// Logits as a function of the tokens so far, the same for all sentences.
std::vector<float> logits_after(const Tokens& tokens, std::int64_t vocabulary) {
    std::mt19937 random(std::accumulate(tokens.begin(), tokens.end(), 7u,
                                        [](unsigned a, Token t) { return 31 * a + t; }));
    std::vector<float> out(vocabulary);
    for (float& x : out) x = std::normal_distribution<float>(0.0f, 2.0f)(random);
    return out;
}

SearchRequest random_request(std::int64_t vocabulary) {
    SearchRequest request{{static_cast<Token>(random_int(0, vocabulary - 1))}, {}, {}, 9, 3};
    request.settings.num_beams = random_int(1, 5);
    request.settings.num_return_sequences = request.settings.num_beams;
    request.settings.do_sample = random_int(0, 1) == 1;
    request.settings.top_p = random_int(0, 1) == 1 ? 0.9 : 1.0;
    request.settings.typical_p = random_int(0, 1) == 1 ? 0.9 : 1.0;
    request.settings.seed = 5;
    if (!request.settings.do_sample) request.settings.num_beam_groups = request.settings.num_beams;
    if (request.settings.num_beams == 4) request.settings.num_beam_groups = 1;
    if (request.settings.num_beams == 4 && !request.settings.do_sample)
        request.settings.force_words_ids = {{{5, 3}}, {{7}, {1, 9}}};
    request.settings.diversity_penalty = 0.5;
    request.settings.no_repeat_ngram_size = random_int(0, 2);
    request.settings.eos_token_id = {0, 2};
    return request;
}

// A string is met in the token that it ends in, whatever was met before.
void check_stop() {
    const auto text = [](std::int64_t most) {
        std::string out(random_int(0, most), 'a');
        for (char& c : out) c = random_int(0, 1) == 1 ? 'a' : 'b';
        return out;
    };
    const std::vector<std::string> strings{"a" + text(3), "bb" + text(3), "ab" + text(2)};
    auto texts = std::make_shared<headway::TokenTexts>();
    for (int i = 0; i < 9; ++i) texts->bytes.push_back(text(4));
    const headway::StopStrings stops(strings, texts);
    headway::StopStrings::State state = 0;
    std::string whole;
    for (int i = 0; i < 60; ++i) {
        const auto token = static_cast<Token>(random_int(0, 8));
        const std::size_t before = whole.size();
        whole += texts->bytes[token];
        bool want = false;
        for (const std::string& string : strings)
            for (auto at = whole.find(string); at != whole.npos; at = whole.find(string, at + 1))
                want |= at + string.size() > before;
        CHECK(stops.met(state, token) == want);
        state = stops.after(state, token);
    }
    CHECK(!stops.met(state, 9) && stops.after(state, 9) == 0);  // a token without a text
}

// The counter's known answers of the authors' own implementation (kat_vectors of Random123).
void check_philox() {
    using Words = std::array<std::uint32_t, 4>;
    CHECK((headway::philox({0, 0, 0, 0}, 0) ==
           Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    CHECK((headway::philox({~0u, ~0u, ~0u, ~0u}, ~0ull) ==
           Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

// Requests enter at their step; the tokens of every row are followed from outside.
std::vector<std::vector<headway::Hypothesis>> run(const std::vector<SearchRequest>& requests,
                                                  const std::vector<int>& steps,
                                                  std::int64_t vocabulary) {
    headway::Searcher searcher(vocabulary);
    std::vector<std::int64_t> keys(requests.size());
    std::vector<Tokens> rows;
    std::vector<std::vector<headway::Hypothesis>> out(requests.size());
    for (int step = 0; step < 40; ++step) {
        for (std::size_t i = 0; i < requests.size(); ++i)
            if (steps[i] == step) {
                keys[i] = searcher.add(requests[i]);
                rows.push_back(requests[i].prompt);
            }
        CHECK(searcher.rows() == std::ssize(rows));
        std::vector<float> logits;
        for (const Tokens& row : rows)
            for (const float x : logits_after(row, vocabulary)) logits.push_back(x);
        searcher.advance({logits.data(), std::ssize(rows), vocabulary});
        for (std::size_t i = 0; i < requests.size(); ++i)
            for (const std::int64_t key : searcher.finished())
                if (steps[i] <= step && keys[i] == key) {
                    out[i] = searcher.found(key);
                    const Tokens settled = searcher.settled(key);
                    CHECK(out[i].empty() || settled == out[i][0].tokens);
                }
        for (const std::int64_t key : std::vector(searcher.finished())) searcher.drop(key);
        const Tokens tokens = searcher.tokens();
        const auto parents = searcher.parents();
        std::vector<Tokens> next;
        for (std::size_t r = 0; r < tokens.size(); ++r) {
            next.push_back(rows[parents[r]]);
            next.back().push_back(tokens[r]);
        }
        rows = next;
    }
    CHECK(rows.empty());
    return out;
}

void check_together(std::int64_t vocabulary) {
    std::vector<SearchRequest> requests;
    std::vector<int> steps;
    for (int i = 0; i < 6; ++i) {
        requests.push_back(random_request(vocabulary));
        steps.push_back(static_cast<int>(random_int(0, 6)));
    }
    const auto together = run(requests, steps, vocabulary);
    for (std::size_t i = 0; i < requests.size(); ++i) {
        const auto alone = run({requests[i]}, {0}, vocabulary)[0];
        CHECK(!alone.empty() && alone.size() == together[i].size());
        for (std::size_t h = 0; h < std::min(alone.size(), together[i].size()); ++h) {
            CHECK(alone[h].tokens == together[i][h].tokens);
            CHECK(alone[h].score == together[i][h].score && alone[h].logs == together[i][h].logs);
            CHECK(alone[h].tokens.size() == alone[h].logs.size());
            const double sum = std::accumulate(alone[h].logs.begin(), alone[h].logs.end(), 0.0);
            const bool beams = requests[i].settings.num_beams > 1;
            CHECK(close(alone[h].score * (beams ? double(alone[h].tokens.size()) : 1.0), sum, 1e-5,
                        1e-5));
        }
    }
}

void check_errors() {
    headway::Searcher searcher(4);
    CHECK_REFUSES(headway::Searcher(0), "the vocabulary has 0 tokens");
    const auto refused = [&](auto change) {
        SearchRequest request{{1}, {}, {}, 5, 0};
        change(request);
        return searcher.add(request);
    };
    CHECK_REFUSES(refused([](auto& r) { r.prompt.clear(); }), "the prompt has no tokens");
    CHECK_REFUSES(refused([](auto& r) { r.prompt = {-1}; }), "the prompt holds -1");
    CHECK_REFUSES(refused([](auto& r) { r.longest = 1; }), "longest is 1: the prompt has 1");
    CHECK_REFUSES(refused([](auto& r) { r.settings.num_beams = 0; }), "num_beams is 0");
    CHECK_REFUSES(refused([](auto& r) { r.settings.num_beam_groups = 2; }),
                  "num_beam_groups is 2 of 1");
    CHECK_REFUSES(refused([](auto& r) {
                      r.settings.do_sample = true;
                      r.settings.temperature = 0.0;
                  }),
                  "temperature is 0");
    CHECK_REFUSES(refused([](auto& r) { r.settings.suppress_tokens = {4}; }),
                  "suppress_tokens: there is no token 4 among 4");
    CHECK_REFUSES(refused([](auto& r) { r.settings.bad_words_ids = {{}}; }), "without tokens");
    CHECK_REFUSES(refused([](auto& r) { r.settings.stop_strings = {"a"}; }), "the tokens' texts");
    CHECK_REFUSES(refused([](auto& r) { r.settings.force_words_ids = {{{1}}}; }), "need beams");
    const std::int64_t key = searcher.add({{1, 9}, {}, {}, 5, 0});
    std::vector<float> logits{0.0f, 1.0f, 2.0f, 0.0f};
    CHECK_REFUSES(searcher.advance({logits.data(), 2, 2}), "logits are (2, 2), not (1, 4)");
    logits[3] = std::nanf("");
    CHECK_REFUSES(searcher.advance({logits.data(), 1, 4}), "row 0 of 1 holds NaN");
    logits[3] = infinity;
    CHECK_REFUSES(searcher.advance({logits.data(), 1, 4}), "row 0 of 1 holds +inf");
    CHECK(searcher.found(key).empty());
    CHECK(searcher.settled(key).empty());
    logits[3] = -infinity;
    searcher.advance({logits.data(), 1, 4});
    CHECK(searcher.settled(key) == Tokens{2} && searcher.tokens() == Tokens{2});
    searcher.drop(key);
    CHECK(searcher.rows() == 0 && searcher.tokens().empty());
}

}  // namespace

int main() {
    check_philox();
    for (int i = 0; i < 50; ++i) check_stop();
    at_every_level([] {
        for (const std::int64_t n : {1, 3, 16, 17, 100, 511, 512, 513, 5000})
            for (const bool ties : {false, true})
                for (const std::size_t count : {1, 4, 30}) {
                    check_best(n, ties, false, count);
                    check_best(n, ties, true, count);
                }
        for (int i = 0; i < 8; ++i) check_together(i % 2 == 0 ? 11 : 700);
        check_errors();
    });
    return failures != 0;
}
