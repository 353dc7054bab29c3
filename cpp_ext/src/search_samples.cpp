// Search without beams by drawing tokens.
#include "search_samples.hpp"

#include <algorithm>
#include <numeric>

namespace headway {

Samples::Samples(SearchRequest request)
    : Sentence(std::move(request)), samples_(request_.settings.num_return_sequences) {
    std::iota(samples_.begin(), samples_.end(), 0u);
}

void Samples::advance(Step& step) {
    children_.clear();
    kept_.clear();
    for (std::size_t i = 0; i < samples_.size(); ++i) {
        const std::int64_t line = begun() ? std::int64_t(i) : 0;
        const Tokens& tokens = lines_[line].tokens;
        step.scores.begin(row(step, line), false);
        rules_.apply(step.scores, tokens);
        step.sampler.begin();
        step.sampler.add(step.scores, request_.settings, 0.0f, 0, step.best);
        const auto length = static_cast<std::uint32_t>(tokens.size());
        const auto drawn =
            step.sampler.draw(1, {0, length, samples_[i], 0}, request_.settings.seed);
        if (drawn.empty() && row(step, line).allowed != nullptr) {  // as long as it can be
            finished_.push_back(so_far(line));
            continue;
        }
        const Next next = drawn.empty() ? Next{0, never, line}  // as greedy search
                                        : Next{drawn[0].token, drawn[0].log, line};
        if (!ends(line, next.token) && std::ssize(tokens) + 1 < request_.longest) {
            children_.push_back(next);
            kept_.push_back(samples_[i]);
            continue;
        }
        finished_.push_back(ended(next));
    }
    sort();
    lines_.go_on(children_, rows_);
    samples_.resize(kept_.size());
    for (std::size_t i = 0; i < kept_.size(); ++i) samples_[rows_[i]] = kept_[i];
    done_ = kept_.empty();
}

void Samples::sort() {
    std::stable_sort(finished_.begin(), finished_.end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
}

void Samples::finish() {
    for (std::size_t i = 0; i < samples_.size(); ++i) finished_.push_back(so_far(i));
    sort();
}

std::vector<std::span<const Token>> Samples::rivals() const {
    std::vector<std::span<const Token>> every;
    for (const Hypothesis& finished : finished_) every.push_back(finished.tokens);
    for (std::size_t i = 0; i < samples_.size(); ++i) every.push_back(written(i));
    return every;
}

}  // namespace headway
