// Diverse beam search, as transformers 4 does it.
#include "search_groups.hpp"

#include <algorithm>
#include <cmath>

namespace headway {

// All beams of a group begin alike: only the first goes on at first.
Groups::Groups(SearchRequest request) : Sentence(std::move(request)) {
    const SearchSettings& settings = request_.settings;
    Group group{std::vector<Beam>(settings.num_beams / settings.num_beam_groups, {out, 0}), {}, {}};
    group.beams[0].score = 0.0f;
    groups_.assign(settings.num_beam_groups, group);
    const Tokens& padding =
        settings.pad_token_id.empty() ? settings.eos_token_id : settings.pad_token_id;
    padding_ = padding.empty() ? 0 : padding[0];
}

void Groups::advance(Step& step) {
    ++length_;
    chosen_.clear();
    children_.clear();
    for (Group& group : groups_)
        if (group.done)
            chosen_.insert(chosen_.end(), group.beams.size(), padding_);
        else
            advance(step, group);
    lines_.go_on(children_, rows_);
    std::size_t place = 0;
    for (Group& group : groups_)
        if (!group.done)
            for (Beam& beam : group.beams) beam.line = rows_[place++];
    done_ = children_.empty();
}

void Groups::advance(Step& step, Group& group) {
    const std::size_t count = group.beams.size(), first = children_.size();
    const auto found = candidates(step, group);
    std::vector<Beam> beams;
    for (std::size_t i = 0; i < found.size() && beams.size() < count; ++i) {
        const Candidate& c = found[i];
        const Next next{c.token, c.log, group.beams[c.beam].line};
        if (!ends(next.parent, c.token)) {
            beams.push_back({c.score, next.parent});
            children_.push_back(next);
        } else if (i < count) {
            keep(group, next, c.score);
        }
    }
    group.done = beams.empty() || !real(beams[0].score) || no_hope(group, found[0].score);
    for (std::size_t i = 0; longest() && !group.done && i < beams.size(); ++i)
        keep(group, children_[first + i], beams[i].score);
    while (beams.size() < count) {
        children_.push_back(dead(group.beams[0]));
        beams.push_back({never, group.beams[0].line});
    }
    for (std::size_t i = first; i < children_.size(); ++i) chosen_.push_back(children_[i].token);
    group.beams = beams;
    group.done |= longest();
    if (group.done) children_.resize(first);
}

// Enough that as many as there are beams do not end.
std::span<const Candidate> Groups::candidates(Step& step, const Group& group) const {
    const std::size_t ends = request_.settings.eos_token_id.size();
    step.best.begin(group.beams.size() * std::max<std::size_t>(2, 1 + ends));
    for (std::size_t i = 0; i < group.beams.size(); ++i) {
        const auto [score, line] = group.beams[i];
        if (!(score > step.best.bar())) continue;  // as logarithms of probabilities are not above 0
        step.scores.begin(row(step, line), true);
        avoid(step.scores);
        rules_.apply(step.scores, lines_[line].tokens);
        step.scores.offer(score, static_cast<std::int32_t>(i), step.best);
    }
    return step.best.sorted();
}

// What other groups have chosen, for each time that they have.
void Groups::avoid(Scores& scores) const {
    for (auto token = chosen_.begin(); token != chosen_.end(); ++token) {
        if (!scores.knows(*token) || std::find(chosen_.begin(), token, *token) != token) continue;
        const auto times = static_cast<float>(std::count(token, chosen_.end(), *token));
        const auto penalty = static_cast<float>(request_.settings.diversity_penalty);
        scores.set(*token, scores.at(*token) - penalty * times);
    }
}

double Groups::divided(float score, std::int64_t length) const {
    return score / std::pow(length, request_.settings.length_penalty);
}

void Groups::keep(Group& group, const Next& last, float score) const {
    const auto worse = [](const Finished& a, const Finished& b) {
        return a.hypothesis.score < b.hypothesis.score;
    };
    const double own = divided(score, length_);
    auto& finished = group.finished;
    const bool full = finished.size() == group.beams.size();
    const auto worst = std::min_element(finished.begin(), finished.end(), worse);
    if (full && !(own > worst->hypothesis.score)) return;
    if (full) finished.erase(worst);
    finished.push_back({ended(last, own), real(score)});
}

// Whether no beam that goes on would come among the finished; best: of all candidates.
bool Groups::no_hope(const Group& group, float best) const {
    const SearchSettings& settings = request_.settings;
    if (group.finished.size() < group.beams.size()) return false;
    if (settings.early_stopping == EarlyStopping::yes) return true;
    const bool later =
        settings.early_stopping == EarlyStopping::never && settings.length_penalty > 0;
    const double hoped =
        divided(best, later ? request_.longest - std::ssize(request_.prompt) : length_);
    return std::all_of(group.finished.begin(), group.finished.end(), [&](const Finished& finished) {
        return finished.hypothesis.score >= hoped;
    });
}

// Of equal scores the one that ended last, as in transformers.
std::vector<Hypothesis> Groups::found() const {
    std::vector<Hypothesis> every;
    for (const Group& group : groups_)
        for (const Finished& finished : group.finished)
            if (finished.real) every.push_back(finished.hypothesis);
    std::reverse(every.begin(), every.end());
    std::stable_sort(every.begin(), every.end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
    const auto wanted = static_cast<std::size_t>(request_.settings.num_return_sequences);
    if (every.size() > wanted) every.resize(wanted);
    return every;
}

std::vector<std::span<const Token>> Groups::rivals() const {
    std::vector<std::span<const Token>> every;
    for (const Group& group : groups_) {
        for (const Finished& finished : group.finished) every.push_back(finished.hypothesis.tokens);
        for (const Beam& beam : group.beams)
            if (!group.done && real(beam.score)) every.push_back(written(beam.line));
    }
    return every;
}

}  // namespace headway
