// Tokens drawn at random from those that the settings of sampling leave.
#include "search_sampler.hpp"

#include <algorithm>
#include <cmath>

#include "dispatch.hpp"
#include "philox.hpp"
#include "softmax_kernels.hpp"

namespace headway {
namespace {

bool likelier(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.token < b.token;
}

// Visits tokens in their order until visit says false, sorting only as many as that takes. Returns
// how many it said true of.
template <class Before, class Visit>
std::size_t in_order(std::vector<Candidate>& tokens, Before before, Visit visit) {
    std::size_t sorted = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (i == sorted) {
            sorted = std::min(tokens.size(), 2 * sorted + 256);
            const auto first = tokens.begin() + i, last = tokens.begin() + sorted;
            if (last != tokens.end()) std::nth_element(first, last, tokens.end(), before);
            std::sort(first, last, before);
        }
        if (!visit(i)) return i;
    }
    return tokens.size();
}

}  // namespace

void Sampler::add(const Scores& scores, const SearchSettings& settings, float before,
                  std::int32_t beam, Best& best) {
    const bool beams = settings.num_beams > 1;
    const std::size_t least = beams ? settings.eos_token_id.size() + 1 : 1;
    take(scores, settings.top_k == 0 ? 0 : std::max<std::size_t>(settings.top_k, least), best);
    for (Candidate& token : row_) token.score /= static_cast<float>(settings.temperature);
    if (settings.top_p < 1.0) keep_top_p(settings.top_p, least);
    if (settings.min_p > 0.0) keep_min_p(settings.min_p, least);
    if (settings.typical_p < 1.0) keep_typical(settings.typical_p, least);
    float total = 0.0f;
    if (!beams || settings.renormalize_logits) {
        weigh(row_);
        total = most_ + static_cast<float>(std::log(sum_));
    }
    for (const Candidate& token : row_) {
        const float log = token.score - total;
        kept_.push_back({log + before, log, beam, token.token});
    }
}

// All tokens, or the top_k likeliest and what is as likely as the last of them.
void Sampler::take(const Scores& scores, std::size_t top_k, Best& best) {
    row_.clear();
    float least = never;
    if (top_k > 0 && top_k < scores.vocabulary()) {
        best.begin(top_k);
        scores.offer(0.0f, 0, best);
        least = best.bar();
    }
    scores.above(least, row_);
}

void Sampler::keep_top_p(double share, std::size_t least) {
    weigh(row_);
    double before = 0.0;
    row_.resize(in_order(row_, likelier, [&](std::size_t i) {
        if (i >= least && before >= share * sum_) return false;
        before += std::exp(double(row_[i].score) - most_);
        return true;
    }));
}

void Sampler::keep_min_p(double share, std::size_t least) {
    row_.resize(in_order(row_, likelier, [&](std::size_t i) {
        return i < least || std::exp(double(row_[i].score) - row_[0].score) >= share;
    }));
}

// Source: Meister, Pimentel, Wiher, Cotterell, "Locally typical sampling" (2023).
void Sampler::keep_typical(double share, std::size_t least) {
    weigh(row_);
    double entropy = 0.0;
    const auto surprise = [&](const Candidate& token) {
        return std::log(sum_) - (double(token.score) - most_);
    };
    for (std::size_t i = 0; i < row_.size(); ++i) entropy += weights_[i] / sum_ * surprise(row_[i]);
    const auto distance = [&](const Candidate& t) { return std::abs(surprise(t) - entropy); };
    const auto closer = [&](const Candidate& a, const Candidate& b) {
        const double one = distance(a), other = distance(b);
        return one != other ? one < other : a.token < b.token;
    };
    double mass = 0.0, farthest = -1.0;  // once the mass is reached
    row_.resize(in_order(row_, closer, [&](std::size_t i) {
        if (i >= least && farthest >= 0.0 && distance(row_[i]) > farthest) return false;
        mass += std::exp(double(row_[i].score) - most_);
        if (farthest < 0.0 && mass >= share * sum_) farthest = distance(row_[i]);
        return true;
    }));
}

void Sampler::weigh(std::span<const Candidate> tokens) {
    const auto& use = in_use<SoftmaxKernels>(HEADWAY_EVERY_LEVEL(softmax_kernels));
    weights_.clear();
    most_ = never;
    for (const Candidate& token : tokens) {
        weights_.push_back(token.score);
        most_ = std::max(most_, token.score);
    }
    sum_ = tokens.empty() ? 0.0
                          : use.exp_row(weights_.data(), weights_.size(), most_, weights_.data());
}

std::span<const Candidate> Sampler::draw(std::size_t count, std::array<std::uint32_t, 4> counter,
                                         std::uint64_t seed) {
    drawn_.clear();
    weigh(kept_);
    while (drawn_.size() < count) {
        double sum = 0.0;
        for (const float weight : weights_) sum += weight;
        if (sum == 0.0) break;
        counter[0] = static_cast<std::uint32_t>(drawn_.size());
        const double at = uniform(counter, seed) * sum;
        std::size_t chosen = 0;
        double passed = 0.0;
        for (std::size_t i = 0; i < weights_.size() && passed <= at; ++i) {
            if (weights_[i] > 0.0f) chosen = i;
            passed += weights_[i];
        }
        drawn_.push_back(kept_[chosen]);
        weights_[chosen] = 0.0f;
    }
    return drawn_;
}

}  // namespace headway
