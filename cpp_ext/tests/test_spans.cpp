// Spans against all spans, sorted.
#include "headway/spans.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "check.hpp"

namespace {

using Places = std::vector<std::int64_t>;

struct Case {
    std::vector<float> start, end;
    Places first, after, windows, questions;

    headway::SpanScores view() const { return {start, end, first, after, windows, questions}; }
};

// Windows of tokens of 0 to 2 characters; scores with many ties.
Case random_case(std::int64_t questions) {
    Case made;
    made.questions = random_offsets(questions, 0, 3);
    made.windows = random_offsets(made.questions.back(), 0, 12);
    for (std::int64_t r = 0; r < made.questions.back(); ++r) {
        std::int64_t place = random_int(0, 3);
        for (std::int64_t t = made.windows[r]; t < made.windows[r + 1]; ++t) {
            made.start.push_back(static_cast<float>(random_int(-3, 3)));
            made.end.push_back(static_cast<float>(random_int(-3, 3)));
            made.first.push_back(random_int(0, 4) == 0 ? -1 : place);
            made.after.push_back(place += random_int(0, 2));
        }
    }
    return made;
}

using Ranked = std::tuple<double, std::int64_t, std::int64_t>;  // minus score, first, after

std::vector<Ranked> every_span(const Case& given, std::int64_t question, std::int64_t longest) {
    std::map<std::pair<std::int64_t, std::int64_t>, double> scores;
    for (std::int64_t r = given.questions[question]; r < given.questions[question + 1]; ++r)
        for (std::int64_t a = given.windows[r]; a < given.windows[r + 1]; ++a)
            for (std::int64_t b = a; b < given.windows[r + 1] && b < a + longest; ++b) {
                if (given.first[a] < 0 || given.first[b] < 0) continue;
                if (given.after[b] <= given.first[a]) continue;
                const double score = given.start[a] + given.end[b];
                auto& kept =
                    scores.try_emplace({given.first[a], given.after[b]}, score).first->second;
                kept = std::max(kept, score);
            }
    std::vector<Ranked> out;
    for (const auto& [place, score] : scores) out.push_back({-score, place.first, place.second});
    std::sort(out.begin(), out.end());
    return out;
}

std::vector<Ranked> apart(const std::vector<Ranked>& every) {
    std::vector<Ranked> out;
    for (const auto& span : every) {
        const auto shares = [&](const Ranked& taken) {
            return std::get<1>(span) < std::get<2>(taken) && std::get<1>(taken) < std::get<2>(span);
        };
        if (std::none_of(out.begin(), out.end(), shares)) out.push_back(span);
    }
    return out;
}

void check_case(bool overlap) {
    const Case given = random_case(random_int(0, 3));
    const std::int64_t k = random_int(1, 6), longest = random_int(1, 14);
    const headway::Spans got = headway::spans(given.view(), k, longest, overlap);
    for (std::size_t q = 0; q + 1 < given.questions.size(); ++q) {
        std::vector<Ranked> want = every_span(given, static_cast<std::int64_t>(q), longest);
        if (!overlap) want = apart(want);
        want.resize(k, {std::numeric_limits<double>::infinity(), 0, 0});
        for (std::int64_t i = 0; i < k; ++i) {
            const auto place = static_cast<std::int64_t>(q) * k + i;
            CHECK(-got.scores[place] == std::get<0>(want[i]));
            CHECK(got.places[2 * place] == std::get<1>(want[i]));
            CHECK(got.places[2 * place + 1] == std::get<2>(want[i]));
        }
    }
}

void check_errors() {
    Case given{{0.0f}, {0.0f}, {0}, {1}, {0, 1}, {0, 1}};
    const auto refused = [&](std::int64_t k, std::int64_t longest) {
        headway::spans(given.view(), k, longest, true);
    };
    CHECK_REFUSES((refused(0, 1), 0), "k is 0");
    CHECK_REFUSES((refused(1, 0), 0), "longest is 0");
    given.start[0] = std::nanf("");
    CHECK_REFUSES((refused(1, 1), 0), "token 0 of 1 has an infinite score or NaN");
    given.start[0] = 0.0f;
    given.questions = {0, 2};
    CHECK_REFUSES((refused(1, 1), 0), "offsets end at 2");
    given.after.clear();
    CHECK_REFUSES((refused(1, 1), 0), "0 last ones");
}

}  // namespace

int main() {
    for (int i = 0; i < 500; ++i) check_case(i % 2 == 0);
    check_errors();
    return failures != 0;
}
