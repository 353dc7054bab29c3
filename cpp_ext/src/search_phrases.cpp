// Phrases that a text must contain, and how far it has come with them.
#include "search_phrases.hpp"

#include <algorithm>
#include <numeric>

namespace headway {

Phrases::Phrases(const std::vector<std::vector<Tokens>>& wanted) : wanted_(wanted) {
    for (const std::vector<Tokens>& alternatives : wanted) {
        const auto [least, most] = std::minmax_element(
            alternatives.begin(), alternatives.end(),
            [](const Tokens& a, const Tokens& b) { return a.size() < b.size(); });
        least_.push_back(std::ssize(*least));
        lengths_.push_back(most->size());
        longest_ = std::max(longest_, most->size());
    }
}

Phrases::Progress Phrases::read(std::span<const Token> tokens) const {
    Progress progress{std::vector<std::size_t>(wanted_.size()), 0, {}};
    std::iota(progress.pending.begin(), progress.pending.end(), std::size_t(0));
    for (const Token token : tokens) add(progress, token);
    return progress;
}

Phrases::Fit Phrases::fit(std::size_t phrase, std::span<const Token> tokens) const {
    for (const Tokens& one : wanted_[phrase])
        if (one.size() >= tokens.size() && std::equal(tokens.begin(), tokens.end(), one.begin()))
            return one.size() == tokens.size() ? Fit::whole : Fit::begins;
    return Fit::no;
}

// As transformers 4 does it: a token that breaks a phrase begins no other.
void Phrases::add(Progress& progress, Token token) const {
    auto& [pending, at, begun] = progress;
    if (!begun.empty()) {
        begun.push_back(token);
        const Fit found = fit(at, begun);
        if (found == Fit::no) pending.push_back(at);
        if (found != Fit::begins) begun.clear();
        return;
    }
    for (auto phrase = pending.begin(); phrase != pending.end(); ++phrase) {
        const Fit found = fit(*phrase, {&token, 1});
        if (found == Fit::no) continue;
        at = *phrase;
        if (found == Fit::begins) begun = {token};
        pending.erase(phrase);
        return;
    }
}

Tokens Phrases::next(const Progress& progress) const {
    Tokens out;
    const auto go_on = [&](std::size_t phrase) {
        for (const Tokens& one : wanted_[phrase]) {
            const auto& begun = progress.begun;
            if (one.size() > begun.size() && std::equal(begun.begin(), begun.end(), one.begin()))
                out.push_back(one[begun.size()]);
        }
    };
    if (progress.begun.empty())
        for (const std::size_t phrase : progress.pending) go_on(phrase);
    else
        go_on(progress.at);
    return out;
}

std::int64_t Phrases::left(const Progress& progress) const {
    const Tokens& begun = progress.begun;
    std::int64_t count = 0;
    for (const std::size_t phrase : progress.pending) count += least_[phrase];
    std::int64_t rest = 0;
    if (!begun.empty())
        for (const Tokens& one : wanted_[progress.at])
            if (one.size() > begun.size() && std::equal(begun.begin(), begun.end(), one.begin()))
                rest = rest == 0 ? std::ssize(one) - std::ssize(begun)
                                 : std::min(rest, std::ssize(one) - std::ssize(begun));
    return count + rest;
}

std::size_t Phrases::bank(const Progress& progress) const {
    const bool begun = !progress.begun.empty();
    const std::size_t met = wanted_.size() - progress.pending.size() - begun;
    return met * longest_ + (begun ? longest_ - lengths_[progress.at] + progress.begun.size() : 0);
}

}  // namespace headway
