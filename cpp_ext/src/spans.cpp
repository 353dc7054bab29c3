// Search for the best spans: every pair of start and end is looked at.
#include "headway/spans.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "headway/ragged.hpp"
#include "refuse.hpp"

namespace headway {
namespace {

struct Span {
    double score;
    std::int64_t first, after;
};

bool better(const Span& a, const Span& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.first != b.first ? a.first < b.first : a.after < b.after;
}

void check(const SpanScores& given, std::int64_t k, std::int64_t longest) {
    const auto tokens = given.start.size();
    if (given.end.size() != tokens || given.first.size() != tokens || given.after.size() != tokens)
        refuse("there are ", tokens, " starts, ", given.end.size(), " ends, ", given.first.size(),
               " first characters and ", given.after.size(), " last ones");
    check_offsets(given.windows, static_cast<std::int64_t>(tokens));
    check_offsets(given.questions, row_count(given.windows));
    for (std::size_t t = 0; t < tokens; ++t)
        if (!std::isfinite(given.start[t]) || !std::isfinite(given.end[t]))
            refuse("token ", t, " of ", tokens, " has an infinite score or NaN");
    if (k < 1) refuse("k is ", k, ": it must be at least 1");
    if (longest < 1) refuse("longest is ", longest, ": it must be at least 1");
}

// Calls visit with every span of a question's windows which is not worse than limit().
template <class Limit, class Visit>
void for_each_span(const SpanScores& given, std::int64_t question, std::int64_t longest,
                   Limit limit, Visit visit) {
    for (auto r = given.questions[question]; r < given.questions[question + 1]; ++r) {
        const std::int64_t end = given.windows[r + 1];
        for (std::int64_t a = given.windows[r]; a < end; ++a) {
            if (given.first[a] < 0) continue;
            const std::int64_t stop = longest < end - a ? a + longest : end;
            for (std::int64_t b = a; b < stop; ++b) {
                const double score = double(given.start[a]) + double(given.end[b]);
                if (score < limit() || given.first[b] < 0 || given.after[b] <= given.first[a])
                    continue;
                visit(Span{score, given.first[a], given.after[b]});
            }
        }
    }
}

// Keeps the k best, sorted; the same characters once.
void insert(std::vector<Span>& best, std::int64_t k, const Span& span) {
    const auto same = std::find_if(best.begin(), best.end(), [&](const Span& other) {
        return other.first == span.first && other.after == span.after;
    });
    if (same != best.end()) {
        if (!better(span, *same)) return;
        best.erase(same);
    } else if (static_cast<std::int64_t>(best.size()) == k) {
        if (!better(span, best.back())) return;
        best.pop_back();
    }
    best.insert(std::upper_bound(best.begin(), best.end(), span, better), span);
}

void best_of_all(const SpanScores& given, std::int64_t question, std::int64_t k,
                 std::int64_t longest, std::vector<Span>& best) {
    const auto limit = [&] {
        return static_cast<std::int64_t>(best.size()) < k ? -std::numeric_limits<double>::infinity()
                                                          : best.back().score;
    };
    for_each_span(given, question, longest, limit,
                  [&](const Span& span) { insert(best, k, span); });
}

// One search for each: the best of those that share nothing with the ones before.
void best_apart(const SpanScores& given, std::int64_t question, std::int64_t k,
                std::int64_t longest, std::vector<Span>& best) {
    constexpr Span none{-std::numeric_limits<double>::infinity(), 0, 0};
    for (std::int64_t i = 0; i < k; ++i) {
        Span top = none;
        for_each_span(
            given, question, longest, [&] { return top.score; },
            [&](const Span& span) {
                for (const Span& taken : best)
                    if (span.first < taken.after && taken.first < span.after) return;
                if (top.after == 0 || better(span, top)) top = span;
            });
        if (top.after == 0) return;
        best.push_back(top);
    }
}

}  // namespace

Spans spans(const SpanScores& given, std::int64_t k, std::int64_t longest, bool overlap) {
    check(given, k, longest);
    const std::int64_t count = row_count(given.questions);
    Spans out{allocate<double>(count, k), allocate<std::int64_t>(count, 2 * k)};
    std::vector<Span> best;
    for (std::int64_t q = 0; q < count; ++q) {
        best.clear();
        (overlap ? best_of_all : best_apart)(given, q, k, longest, best);
        best.resize(k, {-std::numeric_limits<double>::infinity(), 0, 0});
        for (std::int64_t i = 0; i < k; ++i) {
            out.scores[q * k + i] = best[i].score;
            out.places[(q * k + i) * 2] = best[i].first;
            out.places[(q * k + i) * 2 + 1] = best[i].after;
        }
    }
    return out;
}

}  // namespace headway
