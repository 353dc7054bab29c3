// Diverse beam search, as transformers 4 does it.
#include "search_groups.hpp"

#include <algorithm>
#include <cmath>

namespace headway {

// All beams of a group begin alike: only the first goes on at first.
Groups::Groups(SearchRequest request)
    : Sentence(std::move(request)), phrases_(request_.settings.force_words_ids) {
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
    std::vector<Candidate> going_on;
    for (std::size_t i = 0; i < found.size() && going_on.size() < count; ++i) {
        const Candidate& c = found[i];
        const std::int64_t line = group.beams[c.beam].line;
        if (!ends(line, c.token))
            going_on.push_back(c);
        else if (i < count && met(line))
            keep(group, ended({c.token, c.log, line}), c.score);
    }
    share(going_on, group);
    std::vector<Beam> beams;
    for (const Candidate& c : going_on) {
        beams.push_back({c.score, group.beams[c.beam].line});
        children_.push_back({c.token, c.log, beams.back().line});
    }
    const auto hopeful = [](const Beam& beam) { return real(beam.score); };
    group.done = std::none_of(beams.begin(), beams.end(), hopeful) ||
                 no_hope(group, found.empty() ? never : found[0].score);
    if (longest() && !group.done) keep_open(group, first, beams);
    while (beams.size() < count) {
        children_.push_back(dead(group.beams[0]));
        beams.push_back({never, group.beams[0].line});
    }
    for (std::size_t i = first; i < children_.size(); ++i) chosen_.push_back(children_[i].token);
    group.beams = beams;
    group.done |= longest();
    if (group.done) children_.resize(first);
}

// Those without a phrase only if there are no others.
void Groups::keep_open(Group& group, std::size_t first, std::span<const Beam> beams) const {
    std::vector<bool> whole;
    for (std::size_t i = 0; i < beams.size(); ++i) {
        auto progress = phrases_.read(written(beams[i].line));
        phrases_.add(progress, children_[first + i].token);
        whole.push_back(phrases_.met(progress));
        if (whole[i]) keep(group, ended(children_[first + i]), beams[i].score);
    }
    for (std::size_t i = 0; group.finished.empty() && i < beams.size(); ++i)
        if (!whole[i]) keep(group, ended(children_[first + i]), beams[i].score);
}

// Enough that as many as there are beams do not end.
std::span<const Candidate> Groups::candidates(Step& step, const Group& group) {
    pushed_.clear();
    whole_.begin(1 + request_.settings.eos_token_id.size());
    const std::size_t ends = request_.settings.eos_token_id.size();
    step.best.begin(group.beams.size() * std::max<std::size_t>(2, 1 + ends));
    for (std::size_t i = 0; i < group.beams.size(); ++i) {
        const auto [score, line] = group.beams[i];
        if (phrases_.none() && !(score > step.best.bar()))
            continue;  // as logarithms of probabilities are not above 0
        step.scores.begin(row(step, line), true);
        avoid(step.scores);
        rules_.apply(step.scores, lines_[line].tokens);
        step.scores.offer(score, static_cast<std::int32_t>(i), step.best);
        if (!phrases_.none()) push(step.scores, group.beams[i], static_cast<std::int32_t>(i));
    }
    return step.best.sorted();
}

void Groups::push(const Scores& scores, const Beam& beam, std::int32_t place) {
    if (!real(beam.score)) return;
    const auto progress = phrases_.read(written(beam.line));
    if (phrases_.met(progress)) scores.offer(beam.score, place, whole_);
    for (const Token token : phrases_.next(progress)) {
        const float log = scores.at(token);
        if (log > never && !ends(beam.line, token))
            pushed_.push_back({beam.score + log, log, place, token});
    }
}

// The beams shared among banks, by how much of the phrases is there: of each the best, then of each
// the second, and so on; the banks that have come farthest first. One that has room for the rest of
// its phrases is among them if there is any.
// Source: Hu and others, "Improved lexically constrained decoding" (2019), as transformers 4 does
// it.
void Groups::share(std::vector<Candidate>& chosen, const Group& group) {
    if (phrases_.none()) return;
    const std::int64_t room = request_.longest - std::ssize(request_.prompt) - length_;
    const auto same = [](const Candidate& a) {
        return [&a](const Candidate& b) { return a.beam == b.beam && a.token == b.token; };
    };
    for (const Candidate& c : pushed_)
        if (std::none_of(chosen.begin(), chosen.end(), same(c))) chosen.push_back(c);
    if (chosen.empty()) return;
    struct Ranked {
        std::size_t bank, rank;
        bool fits;
        Candidate candidate;
    };
    std::vector<Ranked> every;
    for (const Candidate& c : chosen) {
        auto progress = phrases_.read(written(group.beams[c.beam].line));
        phrases_.add(progress, c.token);
        every.push_back({phrases_.bank(progress), 0, phrases_.left(progress) <= room, c});
    }
    std::stable_sort(every.begin(), every.end(), [](const Ranked& a, const Ranked& b) {
        return a.bank != b.bank ? a.bank > b.bank : a.candidate.score > b.candidate.score;
    });
    for (std::size_t i = 1; i < every.size(); ++i)
        if (every[i].bank == every[i - 1].bank) every[i].rank = every[i - 1].rank + 1;
    std::stable_sort(every.begin(), every.end(),
                     [](const Ranked& a, const Ranked& b) { return a.rank < b.rank; });
    const std::size_t count = std::min(group.beams.size(), every.size());
    for (const Candidate& c : whole_.sorted())
        if (!ends(group.beams[c.beam].line, c.token)) every.push_back({0, 0, true, c});
    const auto end = every.begin() + count;
    const auto fits = [](const Ranked& one) { return one.fits; };
    const auto rescue = std::find_if(end, every.end(), fits);
    if (rescue != every.end() && std::none_of(every.begin(), end, fits))
        std::iter_swap(end - 1, rescue);
    chosen.clear();
    for (auto one = every.begin(); one != end; ++one) chosen.push_back(one->candidate);
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

void Groups::keep(Group& group, Hypothesis hypothesis, float sum) const {
    const auto worse = [](const Finished& a, const Finished& b) {
        return a.hypothesis.score < b.hypothesis.score;
    };
    hypothesis.score = divided(sum, length_);
    auto& finished = group.finished;
    const bool full = finished.size() == group.beams.size();
    const auto worst = std::min_element(finished.begin(), finished.end(), worse);
    if (full && !(hypothesis.score > worst->hypothesis.score)) return;
    if (full) finished.erase(worst);
    finished.push_back({std::move(hypothesis), real(sum)});
}

// Those without a phrase only if there are no others.
void Groups::finish() {
    for (Group& group : groups_) {
        if (group.done) continue;
        for (const bool wanted : {true, false})
            for (const Beam& beam : group.beams)
                if (real(beam.score) && met(beam.line) == wanted &&
                    (wanted || group.finished.empty()))
                    keep(group, so_far(beam.line), beam.score);
    }
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
