// Beam search, as transformers 5 does it.
#include "search_beams.hpp"

#include <algorithm>
#include <cmath>

namespace headway {

// All beams begin alike: only the first goes on at first.
Beams::Beams(SearchRequest request)
    : Sentence(std::move(request)), beams_(request_.settings.num_beams, {out, 0}) {
    beams_[0].score = 0.0f;
}

void Beams::advance(Step& step) {
    const SearchSettings& settings = request_.settings;
    const std::size_t count = beams_.size();
    // enough that as many as there are beams do not end
    const std::size_t wanted = count * std::max<std::size_t>(2, 1 + settings.eos_token_id.size());
    const auto found = settings.do_sample ? drawn(step, wanted) : best(step, wanted);
    ++length_;
    const bool longest = std::ssize(request_.prompt) + length_ >= request_.longest;
    bool way_on = false;
    ranked_.clear();
    for (std::size_t i = 0; i < found.size(); ++i) {
        const bool end = longest || ends(beams_[found[i].beam].line, found[i].token);
        if (end && i < count) keep(ended(next(found[i])), found[i].score);
        way_on |= !end;
        ranked_.push_back({found[i].score + (end ? out : 0.0f), std::int64_t(i)});
    }
    const auto last = ranked_.begin() + std::min(count, ranked_.size());
    std::partial_sort(ranked_.begin(), last, ranked_.end(), [](const Ranked& a, const Ranked& b) {
        return a.score != b.score ? a.score > b.score : a.place < b.place;
    });
    go_on(found, {ranked_.begin(), last});
    done_ = !way_on || no_hope();
}

std::span<const Candidate> Beams::best(Step& step, std::size_t count) {
    step.best.begin(count);
    for (std::size_t i = 0; i < beams_.size(); ++i) {
        const auto [score, line] = beams_[i];
        if (!(score > step.best.bar())) continue;  // as logarithms of probabilities are not above 0
        step.scores.begin(row(step, line), true);
        rules_.apply(step.scores, lines_[line].tokens);
        step.scores.offer(score, static_cast<std::int32_t>(i), step.best);
    }
    return step.best.sorted();
}

std::span<const Candidate> Beams::drawn(Step& step, std::size_t count) {
    step.sampler.begin();
    for (std::size_t i = 0; i < beams_.size(); ++i) {
        const auto [score, line] = beams_[i];
        if (!real(score)) continue;
        step.scores.begin(row(step, line), true);
        rules_.apply(step.scores, lines_[line].tokens);
        step.sampler.add(step.scores, request_.settings, score, static_cast<std::int32_t>(i),
                         step.best);
    }
    const auto length = static_cast<std::uint32_t>(lines_[0].tokens.size());
    return step.sampler.draw(count, {0, length, 0, 0}, request_.settings.seed);
}

float Beams::divided(float score, std::int64_t length) const {
    return score / static_cast<float>(std::pow(length, request_.settings.length_penalty));
}

void Beams::keep(Hypothesis hypothesis, float sum) {
    const float score = divided(sum, length_);
    if (!(score > bar())) return;
    if (full()) finished_.pop_back();
    const auto place = std::upper_bound(finished_.begin(), finished_.end(), score,
                                        [](float a, const Finished& b) { return a > b.score; });
    hypothesis.score = score;
    finished_.insert(place, {std::move(hypothesis), score, real(sum)});
}

void Beams::finish() {
    for (const Beam& beam : beams_)
        if (real(beam.score)) keep(so_far(beam.line), beam.score);
}

void Beams::go_on(std::span<const Candidate> found, std::span<const Ranked> chosen) {
    children_.assign(beams_.size(), dead(beams_[0]));
    for (std::size_t i = 0; i < chosen.size(); ++i) children_[i] = next(found[chosen[i].place]);
    lines_.go_on(children_, rows_);
    for (std::size_t i = 0; i < beams_.size(); ++i)
        beams_[i] = {i < chosen.size() ? chosen[i].score : never, rows_[i]};
}

// Whether no beam that goes on would come among the finished.
bool Beams::no_hope() const {
    const SearchSettings& settings = request_.settings;
    if (settings.early_stopping == EarlyStopping::yes && full()) return true;
    const bool later =
        settings.early_stopping == EarlyStopping::never && settings.length_penalty > 0;
    const std::int64_t length = later ? request_.longest - std::ssize(request_.prompt) : length_;
    return !real(beams_[0].score) || divided(beams_[0].score, length) <= bar();
}

std::vector<Hypothesis> Beams::found() const {
    std::vector<Hypothesis> every;
    for (const Finished& finished : finished_)
        if (finished.real) every.push_back(finished.hypothesis);
    const auto wanted = static_cast<std::size_t>(request_.settings.num_return_sequences);
    if (every.size() > wanted) every.resize(wanted);
    return every;
}

std::vector<std::span<const Token>> Beams::rivals() const {
    std::vector<std::span<const Token>> every;
    for (const Beam& beam : beams_)
        if (real(beam.score)) every.push_back(written(beam.line));
    if (!finished_.empty() && finished_[0].real) every.push_back(finished_[0].hypothesis.tokens);
    return every;
}

}  // namespace headway
