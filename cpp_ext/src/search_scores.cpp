// The scores of a row's next token.
#include "search_scores.hpp"

#include <algorithm>
#include <cmath>

#include "dispatch.hpp"

namespace headway {
namespace {

bool better(const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.beam != b.beam ? a.beam < b.beam : a.token < b.token;
}

// Log probabilities as float32 has them: the same two roundings as everywhere.
void set_shifts(float* shifts, const Mass& mass) {
    if (mass.max == never) return;  // no token may come: nothing to divide
    shifts[0] = mass.max;
    shifts[1] = mass.log();
}

}  // namespace

void Mass::add(const Mass& other) {
    if (other.max == never) return;
    const float most = std::max(max, other.max);
    sum = sum * std::exp(double(max) - most) + other.sum * std::exp(double(other.max) - most);
    max = most;
}

float Mass::log() const { return static_cast<float>(std::log(sum)); }

void Best::begin(std::size_t count) {
    count_ = count;
    heap_.clear();
    heap_.reserve(count);
}

void Best::offer(const Candidate& candidate) {
    if (candidate.score == never) return;
    if (full()) {
        if (!better(candidate, heap_.front())) return;
        std::pop_heap(heap_.begin(), heap_.end(), better);
        heap_.back() = candidate;
    } else {
        heap_.push_back(candidate);
    }
    std::push_heap(heap_.begin(), heap_.end(), better);
}

std::span<const Candidate> Best::sorted() {
    std::sort_heap(heap_.begin(), heap_.end(), better);
    return heap_;
}

Scores::Scores(std::int64_t vocabulary)
    : place_(vocabulary), peaks_((vocabulary + search_block - 1) / search_block) {}

void Scores::begin(const Row& row, bool logs) {
    kernels_ = &in_use<SearchKernels>(HEADWAY_EVERY_LEVEL(search_kernels));
    clear();
    row_ = row;
    forced_ = false;
    std::fill(std::begin(shifts_), std::end(shifts_), 0.0f);
    if (logs) set_shifts(shifts_, row.mass);
}

void Scores::clear() {
    for (const Change& change : changes_) place_[change.token] = 0;
    changes_.clear();
}

float Scores::unchanged(float logit) const {
    return forced_ ? never : (((logit - shifts_[0]) - shifts_[1]) - shifts_[2]) - shifts_[3];
}

float Scores::at(Token token) const {
    const std::uint32_t place = place_[token];
    return place == 0 ? unchanged(row_.logits[token]) : changes_[place - 1].score;
}

Scores::Change& Scores::changed(Token token) {
    std::uint32_t& place = place_[token];
    if (place == 0) {
        changes_.push_back({token, unchanged(row_.logits[token]), false});
        place = static_cast<std::uint32_t>(changes_.size());
    }
    return changes_[place - 1];
}

void Scores::forbid(std::span<const Token> tokens) {
    for (const Token token : tokens) set(token, never);
}

// The shifts stay those of the whole row.
void Scores::keep_allowed() {
    if (row_.allowed == nullptr) return;
    for (Change& change : changes_)
        if (!(row_.allowed[change.token / 32] >> change.token % 32 & 1)) change.score = never;
    const std::size_t n = place_.size();
    kept_.resize(n);
    kept_peaks_.resize(peaks_.size());
    kernels_->keep(row_.logits, row_.allowed, n, kept_.data());
    const RowSum row = kernels_->sum(kept_.data(), n, kept_peaks_.data());
    row_ = {kept_.data(), kept_peaks_.data(), {row.max, row.sum}};
}

void Scores::force(std::span<const Token> tokens) {
    clear();
    forced_ = true;
    for (const Token token : tokens) set(token, 0.0f);
}

void Scores::penalize(Token token, float penalty) {
    Change& change = changed(token);
    if (change.penalized) return;
    change.penalized = true;
    change.score = change.score < 0 ? change.score * penalty : change.score / penalty;
}

void Scores::normalize() {
    const Mass all = mass();
    set_shifts(shifts_ + 2, all);
    for (Change& change : changes_)
        if (all.max != never) change.score = (change.score - all.max) - all.log();
}

// Added up again, not subtracted from the row's: what is left may be the smallest part of it.
Mass Scores::mass() const {
    if (changes_.empty() && !forced_) return {unchanged(row_.mass.max), row_.mass.sum};
    Mass all;
    for (const Change& change : changes_) all.add({change.score, 1.0});
    if (forced_) return all;
    order_.clear();
    for (const Change& change : changes_) order_.push_back(change.token);
    std::sort(order_.begin(), order_.end());
    order_.push_back(static_cast<Token>(place_.size()));
    std::size_t from = 0;
    for (const Token stop : order_) {
        const RowSum part = kernels_->sum(row_.logits + from, stop - from, peaks_.data());
        all.add({unchanged(part.max), part.sum});
        from = std::size_t(stop) + 1;
    }
    return all;
}

// A logit not above it gives no score above the bar: rounding, of at most half a unit in the last
// place of each operand, is allowed for. +inf where no logit of the row does.
float Scores::limit(float before, float bar) const {
    if (bar == never) return never;
    if (!(unchanged(row_.mass.max) + before > bar)) return -never;
    double sum = double(bar) - before, size = std::abs(double(bar)) + std::abs(double(before));
    for (const float shift : shifts_) {
        sum += shift;
        size += std::abs(double(shift));
    }
    return static_cast<float>(sum - 8 * std::numeric_limits<float>::epsilon() * size);
}

template <class Visit>
void Scores::scan(float& least, Visit visit) const {
    const std::size_t n = forced_ ? 0 : place_.size();
    for (std::size_t block = 0; block * search_block < n; ++block) {
        if (!(row_.peaks[block] > least)) continue;
        const std::size_t end = std::min(n, (block + 1) * search_block);
        for (std::size_t i = block * search_block;;) {
            i = kernels_->find_greater(row_.logits, i, end, least);
            if (i == end) break;
            do {  // one often follows another where many are wanted
                if (place_[i] == 0) visit(static_cast<Token>(i), unchanged(row_.logits[i]));
            } while (++i < end && row_.logits[i] > least);
        }
    }
}

void Scores::offer(float before, std::int32_t beam, Best& best) const {
    float least = limit(before, best.bar());
    scan(least, [&](Token token, float log) {
        const float score = log + before;
        if (!(score > best.bar())) return;
        best.offer({score, log, beam, token});
        least = limit(before, best.bar());
    });
    for (const Change& change : changes_)
        best.offer({change.score + before, change.score, beam, change.token});
}

void Scores::above(float least, std::vector<Candidate>& out) const {
    float under = limit(0.0f, std::nextafter(least, never));
    const auto add = [&](Token token, float score) {
        if (score >= least && score > never) out.push_back({score, score, 0, token});
    };
    scan(under, add);
    for (const Change& change : changes_) add(change.token, change.score);
}

}  // namespace headway
