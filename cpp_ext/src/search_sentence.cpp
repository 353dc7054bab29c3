// Lines of a sentence, and which of their tokens are settled.
#include "search_sentence.hpp"

#include <algorithm>
#include <numeric>

namespace headway {

Lines::Lines(const Tokens& prompt, const StopStrings& stops)
    : stops_(stops), lines_{{prompt, {}, 0}} {
    for (const Token token : prompt) lines_[0].stop = stops.after(lines_[0].stop, token);
}

void Lines::go_on(std::span<const Next> children, std::vector<std::int64_t>& rows) {
    constexpr std::int64_t nowhere = -1;
    const auto count = static_cast<std::int64_t>(children.size());
    rows_.assign(count, {0, 0.0f, nowhere});
    rows.assign(count, nowhere);
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t parent = children[i].parent;
        if (parent >= count || rows_[parent].parent != nowhere) continue;
        rows_[parent] = children[i];
        rows[i] = parent;
    }
    if (std::ssize(lines_) < count) lines_.resize(count);
    std::int64_t free = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        if (rows[i] != nowhere) continue;
        while (rows_[free].parent != nowhere) ++free;
        rows_[free] = children[i];
        rows[i] = free;
        lines_[free] = lines_[children[i].parent];  // which no other child has replaced
    }
    for (std::int64_t row = 0; row < count; ++row) {
        lines_[row].tokens.push_back(rows_[row].token);
        lines_[row].logs.push_back(rows_[row].log);
        lines_[row].stop = stops_.after(lines_[row].stop, rows_[row].token);
    }
}

Sentence::Sentence(SearchRequest request)
    : request_(std::move(request)),
      rules_(request_),
      stops_(request_.settings.stop_strings, request_.texts),
      lines_(request_.prompt, stops_) {}

Hypothesis Sentence::so_far(std::int64_t line) const {
    const auto tokens = written(line);
    const std::vector<float>& logs = lines_[line].logs;
    return {{tokens.begin(), tokens.end()}, std::accumulate(logs.begin(), logs.end(), 0.0), logs};
}

Hypothesis Sentence::ended(const Next& last) const {
    Hypothesis found = so_far(last.parent);
    found.score += last.log;
    found.tokens.push_back(last.token);
    found.logs.push_back(last.log);
    return found;
}

Tokens Sentence::settled() const {
    if (done_) {
        const auto every = found();
        return every.empty() ? Tokens{} : every.front().tokens;
    }
    std::span<const Token> common;
    bool first = true;
    for (const auto rival : rivals()) {
        if (first) common = rival;
        first = false;
        const auto differ = std::mismatch(common.begin(), common.end(), rival.begin(), rival.end());
        common = common.first(differ.first - common.begin());
    }
    return {common.begin(), common.end()};
}

}  // namespace headway
