// Tags against a search over all sequences; probabilities against their sums.
#include "headway/tags.hpp"

#include <limits>

#include "check.hpp"

namespace {

using Offsets = std::vector<std::int64_t>;
constexpr double impossible = -std::numeric_limits<double>::infinity();

// A random grammar of n tags, in which tag 0 may stand anywhere.
struct Rules {
    std::int64_t n;
    std::unique_ptr<bool[]> follows, begins, ends, continues;

    explicit Rules(std::int64_t count)
        : n(count),
          follows(new bool[count * count]),
          begins(new bool[count]),
          ends(new bool[count]),
          continues(new bool[count * count]) {
        for (std::int64_t i = 0; i < n * n; ++i) {
            follows[i] = i < n || i % n == 0 || random_int(0, 2) == 0;
            continues[i] = random_int(0, 1) == 0;
        }
        for (std::int64_t i = 0; i < n; ++i) {
            begins[i] = i == 0 || random_int(0, 1) == 0;
            ends[i] = i == 0 || random_int(0, 1) == 0;
        }
    }

    headway::Grammar view() const { return {follows.get(), begins.get(), ends.get(), n}; }

    bool allows(const std::vector<std::int32_t>& tags) const {
        for (std::size_t w = 1; w < tags.size(); ++w)
            if (!follows[tags[w - 1] * n + tags[w]]) return false;
        return tags.empty() || (begins[tags.front()] && ends[tags.back()]);
    }
};

// Calls visit with every sequence of `words` tags.
template <class Visit>
void for_each_sequence(std::int64_t words, std::int64_t n, Visit visit) {
    std::vector<std::int32_t> tags(words);
    for (;;) {
        visit(tags);
        std::int64_t w = 0;
        while (w < words && ++tags[w] == n) tags[w++] = 0;
        if (w == words) return;
    }
}

double sum_of(const float* scores, const std::vector<std::int32_t>& tags, std::int64_t n) {
    double sum = 0.0;
    for (std::size_t w = 0; w < tags.size(); ++w) sum += scores[w * n + tags[w]];
    return sum;
}

// Of one text: the best sum, and the probability that words [first, after) have these tags.
struct Searched {
    double best = impossible, chance = 0.0;
};

Searched search(const Rules& rules, const float* scores, std::int64_t words,
                const std::int32_t* chosen, std::int64_t first, std::int64_t after) {
    Searched found;
    double total = 0.0;
    for_each_sequence(words, rules.n, [&](const std::vector<std::int32_t>& tags) {
        if (!rules.allows(tags)) return;
        const double sum = sum_of(scores, tags, rules.n);
        found.best = std::max(found.best, sum);
        total += std::exp(sum);
        const bool same = std::equal(tags.begin() + first, tags.begin() + after, chosen + first);
        if (same && (after == words || !rules.continues[tags[after - 1] * rules.n + tags[after]]))
            found.chance += std::exp(sum);
    });
    found.chance /= total;
    return found;
}

void check_batch(std::int64_t texts, std::int64_t n) {
    const Rules rules(n);
    const Offsets offsets = random_offsets(texts, 0, 5);
    const std::vector<float> scores = random_floats(offsets.back() * n);  // (W, C)
    const headway::Matrix matrix{scores.data(), offsets.back(), n};
    const auto found = headway::tags(matrix, offsets, rules.view());
    const std::vector<std::int32_t> chosen(found.get(), found.get() + offsets.back());
    std::vector<headway::Stretch> stretches;
    std::vector<double> chances;
    for (std::int64_t b = 0; b < texts; ++b) {
        const std::int64_t at = offsets[b], words = offsets[b + 1] - at;
        if (words == 0) continue;
        const std::int64_t first = random_int(0, words - 1), after = random_int(first + 1, words);
        const Searched want =
            search(rules, scores.data() + at * n, words, chosen.data() + at, first, after);
        const std::vector<std::int32_t> own(chosen.begin() + at, chosen.begin() + at + words);
        CHECK(rules.allows(own));
        CHECK_CLOSE(sum_of(scores.data() + at * n, own, n), want.best);
        stretches.push_back({at + first, at + after});
        chances.push_back(want.chance);
    }
    const auto got = headway::stretch_chances(matrix, offsets, rules.view(), rules.continues.get(),
                                              chosen, stretches);
    for (std::size_t s = 0; s < stretches.size(); ++s) CHECK_CLOSE(got[s], chances[s]);
}

void check_no_allowed_sequence() {
    const bool follows[4] = {}, begins[2] = {true, true}, ends[2] = {true, true};
    const headway::Grammar grammar{follows, begins, ends, 2};
    const std::vector<float> scores{1.0f, 2.0f, 5.0f, 5.0f};
    const auto found = headway::tags({scores.data(), 2, 2}, Offsets{0, 2}, grammar);
    CHECK(found[0] == 1 && found[1] == 0);
    const std::vector<std::int32_t> chosen{1, 0};
    const std::vector<headway::Stretch> stretches{{0, 1}};
    const auto chances = headway::stretch_chances({scores.data(), 2, 2}, Offsets{0, 2}, grammar,
                                                  follows, chosen, stretches);
    CHECK(chances[0] == 0.0);
}

// Thousands of words: nothing under- or overflows.
void check_long_text() {
    const Rules rules(3);
    const std::int64_t words = 20000;
    const std::vector<float> scores = random_floats(words * 3, 30.0f);
    const headway::Matrix matrix{scores.data(), words, 3};
    const Offsets offsets{0, words};
    const auto found = headway::tags(matrix, offsets, rules.view());
    const std::vector<std::int32_t> chosen(found.get(), found.get() + words);
    CHECK(rules.allows(chosen));
    const std::vector<headway::Stretch> stretches{{0, 1}, {9999, 10001}, {words - 1, words}};
    const auto chances = headway::stretch_chances(matrix, offsets, rules.view(),
                                                  rules.continues.get(), chosen, stretches);
    for (int s = 0; s < 3; ++s) CHECK(chances[s] >= 0.0 && chances[s] <= 1.0);
}

void check_errors() {
    const Rules rules(2);
    std::vector<float> scores(6);
    const headway::Matrix matrix{scores.data(), 3, 2};
    const Offsets offsets{0, 3};
    CHECK_REFUSES(headway::tags(matrix, Offsets{0, 2}, rules.view()), "end at 2, but there are 3");
    CHECK_REFUSES(headway::tags({scores.data(), 2, 3}, Offsets{0, 2}, rules.view()),
                  "words have 3 scores, but there are 2 tags");
    const auto chances = [&](std::vector<std::int32_t> chosen,
                             std::vector<headway::Stretch> stretches) {
        headway::stretch_chances(matrix, offsets, rules.view(), rules.continues.get(), chosen,
                                 stretches);
    };
    CHECK_REFUSES((chances({0, 0}, {}), 0), "there are 2 tags for 3 words");
    CHECK_REFUSES((chances({0, 2, 0}, {}), 0), "word 1 has tag 2: it must be 0 to 1");
    CHECK_REFUSES((chances({0, 0, 0}, {{1, 1}}), 0), "stretch 0 is words 1 to 1");
    CHECK_REFUSES((chances({0, 0, 0}, {{0, 1}, {2, 4}}), 0), "stretch 1 is words 2 to 4");
    CHECK_REFUSES((chances({0, 0, 0}, {{-1, 1}}), 0), "stretch 0");
    for (const float wrong : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        scores[4] = wrong;
        CHECK_REFUSES(headway::tags(matrix, offsets, rules.view()),
                      "word 2 of 3 holds NaN or +inf");
    }
}

}  // namespace

int main() {
    for (int i = 0; i < 200; ++i) check_batch(random_int(0, 4), random_int(1, 4));
    check_no_allowed_sequence();
    check_long_text();
    check_errors();
    return failures != 0;
}
