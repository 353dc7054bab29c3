// Decoding of tags: Viterbi's algorithm for the best sequence, forward-backward for probabilities.
#include "headway/tags.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "headway/ragged.hpp"
#include "refuse.hpp"

namespace headway {
namespace {

constexpr double impossible = -std::numeric_limits<double>::infinity();

void check(const Matrix& scores, std::span<const std::int64_t> offsets, const Grammar& grammar) {
    check_offsets(offsets, scores.rows);
    if (scores.columns < 1 || scores.columns != grammar.count)
        refuse("words have ", scores.columns, " scores, but there are ", grammar.count, " tags");
    for (std::int64_t w = 0; w < scores.rows; ++w)
        for (std::int64_t c = 0; c < scores.columns; ++c)
            if (!(scores.row(w)[c] < std::numeric_limits<float>::infinity()))
                refuse("word ", w, " of ", scores.rows, " holds NaN or +inf");
}

std::int64_t longest_row(std::span<const std::int64_t> offsets) {
    std::int64_t longest = 0;
    for (std::size_t b = 0; b + 1 < offsets.size(); ++b)
        longest = std::max(longest, offsets[b + 1] - offsets[b]);
    return longest;
}

// For each tag those that it may follow, or those that may follow it, in ascending order.
class Neighbours {
  public:
    Neighbours(const Grammar& grammar, bool before) : first_(grammar.count + 1) {
        const std::int64_t n = grammar.count;
        for (std::int64_t tag = 0; tag < n; ++tag) {
            for (std::int64_t other = 0; other < n; ++other)
                if (grammar.follows[before ? other * n + tag : tag * n + other])
                    tags_.push_back(static_cast<std::int32_t>(other));
            first_[tag + 1] = tags_.size();
        }
    }

    std::span<const std::int32_t> of(std::int64_t tag) const {
        return {tags_.data() + first_[tag], first_[tag + 1] - first_[tag]};
    }

  private:
    std::vector<std::size_t> first_;
    std::vector<std::int32_t> tags_;
};

// Each word's first best tag; returns whether these make an allowed sequence.
bool take_best(const Matrix& scores, std::int64_t begin, std::int64_t end, const Grammar& grammar,
               std::int32_t* out) {
    bool allowed = true;
    for (std::int64_t w = begin; w < end; ++w) {
        const float* row = scores.row(w);
        const auto best = std::max_element(row, row + scores.columns) - row;
        out[w] = static_cast<std::int32_t>(best);
        allowed = allowed && (w == begin ? grammar.begins[best]
                                         : grammar.follows[out[w - 1] * grammar.count + best]);
    }
    return begin == end || (allowed && grammar.ends[out[end - 1]]);
}

// Its memory serves all texts of a call.
class Viterbi {
  public:
    Viterbi(const Grammar& grammar, std::int64_t longest)
        : grammar_(grammar),
          before_(grammar, true),
          sums_(grammar.count),
          next_(grammar.count),
          came_(allocate<std::int32_t>(longest, grammar.count)) {}

    // Leaves out as it is if there is no allowed sequence.
    void run(const Matrix& scores, std::int64_t begin, std::int64_t end, std::int32_t* out) {
        const std::int64_t n = grammar_.count;
        for (std::int64_t tag = 0; tag < n; ++tag)
            sums_[tag] = grammar_.begins[tag] ? double(scores.row(begin)[tag]) : impossible;
        for (std::int64_t w = begin + 1; w < end; ++w)
            step(scores.row(w), came_.get() + (w - begin) * n);
        std::int32_t last = -1;
        double most = impossible;
        for (std::int32_t tag = 0; tag < n; ++tag)
            if (grammar_.ends[tag] && sums_[tag] > most) most = sums_[last = tag];
        if (last < 0) return;
        for (std::int64_t w = end - 1; w >= begin; --w) {
            out[w] = last;
            last = came_[(w - begin) * n + last];  // not read of the first word
        }
    }

  private:
    void step(const float* row, std::int32_t* came) {
        for (std::int64_t tag = 0; tag < grammar_.count; ++tag) {
            double most = impossible;
            came[tag] = 0;
            for (const std::int32_t other : before_.of(tag))
                if (sums_[other] > most) most = sums_[came[tag] = other];
            next_[tag] = most + row[tag];
        }
        sums_.swap(next_);
    }

    const Grammar& grammar_;
    Neighbours before_;
    std::vector<double> sums_, next_;  // (C): of the best sequence up to here that ends in the tag
    Buffer<std::int32_t> came_;        // (W, C): the tag before, on that sequence
};

// Its memory serves all texts of a call. Everything is scaled so that each word's forward values
// add up to 1.
class ForwardBackward {
  public:
    ForwardBackward(const Grammar& grammar, const bool* continues, std::int64_t longest)
        : grammar_(grammar),
          continues_(continues),
          before_(grammar, true),
          after_(grammar, false),
          emission_(allocate<double>(longest, grammar.count)),
          forward_(allocate<double>(longest, grammar.count)),
          backward_(allocate<double>(longest, grammar.count)),
          scale_(allocate<double>(longest, 1)) {}

    // False if the text has no allowed sequence.
    bool run(const Matrix& scores, std::int64_t begin, std::int64_t end) {
        n_ = end - begin;
        for (std::int64_t w = 0; w < n_; ++w)
            if (!step_forward(scores.row(begin + w), w)) return false;
        const double* last = forward(n_ - 1);
        double total = 0.0;
        for (std::int64_t tag = 0; tag < grammar_.count; ++tag)
            if (grammar_.ends[tag]) total += last[tag];
        if (!(total > 0.0)) return false;
        total_ = total;
        for (std::int64_t tag = 0; tag < grammar_.count; ++tag)
            backward(n_ - 1)[tag] = grammar_.ends[tag] ? 1.0 / total : 0.0;
        for (std::int64_t w = n_ - 2; w >= 0; --w) step_backward(w);
        return true;
    }

    // Words [first, after) of the text, with the tags chosen for them.
    double chance(std::int64_t first, std::int64_t after, const std::int32_t* chosen) const {
        const std::int64_t n = grammar_.count;
        double found = forward_[first * n + chosen[first]];
        for (std::int64_t w = first + 1; w < after; ++w) {
            if (!grammar_.follows[chosen[w - 1] * n + chosen[w]]) return 0.0;
            found *= emission_[w * n + chosen[w]] / scale_[w];
        }
        return std::min(found * rest(after, chosen[after - 1]), 1.0);
    }

  private:
    double* forward(std::int64_t w) { return forward_.get() + w * grammar_.count; }
    double* backward(std::int64_t w) { return backward_.get() + w * grammar_.count; }

    bool step_forward(const float* row, std::int64_t w) {
        const std::int64_t n = grammar_.count;
        const double most = *std::max_element(row, row + n);
        double* emitted = emission_.get() + w * n;
        double* sums = forward(w);
        double total = 0.0;
        for (std::int64_t tag = 0; tag < n; ++tag) {
            double reached = w == 0 ? double(grammar_.begins[tag]) : 0.0;
            if (w > 0)
                for (const std::int32_t other : before_.of(tag)) reached += sums[other - n];
            emitted[tag] = std::isinf(most) ? 0.0 : std::exp(row[tag] - most);
            total += sums[tag] = reached * emitted[tag];
        }
        scale_[w] = total;
        for (std::int64_t tag = 0; tag < n; ++tag) sums[tag] /= total;
        return total > 0.0;
    }

    void step_backward(std::int64_t w) {
        for (std::int64_t tag = 0; tag < grammar_.count; ++tag) {
            double sum = 0.0;
            for (const std::int32_t other : after_.of(tag)) sum += onward(w + 1, other);
            backward(w)[tag] = sum;
        }
    }

    // What the sequences that have this tag at a word weigh from there on, over the word's scale.
    double onward(std::int64_t w, std::int32_t tag) const {
        const std::int64_t place = w * grammar_.count + tag;
        return emission_[place] * backward_[place] / scale_[w];
    }

    // The same behind a last tag, where none follows that continues it.
    double rest(std::int64_t w, std::int32_t last) const {
        if (w == n_) return grammar_.ends[last] ? 1.0 / total_ : 0.0;
        double sum = 0.0;
        for (const std::int32_t other : after_.of(last))
            if (!continues_[last * grammar_.count + other]) sum += onward(w, other);
        return sum;
    }

    const Grammar& grammar_;
    const bool* continues_;
    Neighbours before_, after_;
    Buffer<double> emission_, forward_, backward_;  // (W, C)
    Buffer<double> scale_;                          // (W)
    double total_ = 0.0;                            // what the allowed sequences weigh at the end
    std::int64_t n_ = 0;                            // words of the text at hand
};

}  // namespace

Buffer<std::int32_t> tags(const Matrix& scores, std::span<const std::int64_t> offsets,
                          const Grammar& grammar) {
    check(scores, offsets, grammar);
    auto out = allocate<std::int32_t>(scores.rows, 1);  // (W)
    std::unique_ptr<Viterbi> viterbi;
    for (std::int64_t b = 0; b < row_count(offsets); ++b) {
        if (take_best(scores, offsets[b], offsets[b + 1], grammar, out.get())) continue;
        if (!viterbi) viterbi = std::make_unique<Viterbi>(grammar, longest_row(offsets));
        viterbi->run(scores, offsets[b], offsets[b + 1], out.get());
    }
    return out;
}

Buffer<double> stretch_chances(const Matrix& scores, std::span<const std::int64_t> offsets,
                               const Grammar& grammar, const bool* continues,
                               std::span<const std::int32_t> chosen,
                               std::span<const Stretch> stretches) {
    check(scores, offsets, grammar);
    if (static_cast<std::int64_t>(chosen.size()) != scores.rows)
        refuse("there are ", chosen.size(), " tags for ", scores.rows, " words");
    for (std::size_t w = 0; w < chosen.size(); ++w)
        if (chosen[w] < 0 || chosen[w] >= grammar.count)
            refuse("word ", w, " has tag ", chosen[w], ": it must be 0 to ", grammar.count - 1);
    auto out = allocate<double>(static_cast<std::int64_t>(stretches.size()), 1);  // (S)
    ForwardBackward sums(grammar, continues, longest_row(offsets));
    std::int64_t text = -1;
    bool possible = false;
    for (std::size_t s = 0; s < stretches.size(); ++s) {
        const auto [first, after] = stretches[s];
        const std::int64_t begun = text;
        while (text + 1 < row_count(offsets) && (text < 0 || first >= offsets[text + 1])) ++text;
        if (text < 0 || first < offsets[text] || after <= first || after > offsets[text + 1])
            refuse("stretch ", s, " is words ", first, " to ", after, ", not in order in one text");
        if (text != begun) possible = sums.run(scores, offsets[text], offsets[text + 1]);
        const std::int64_t at = offsets[text];
        out[s] = possible ? sums.chance(first - at, after - at, chosen.data() + at) : 0.0;
    }
    return out;
}

}  // namespace headway
