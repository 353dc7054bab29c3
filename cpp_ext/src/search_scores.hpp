// The scores of a row's next token: the logits in place, and beside them the few that rules change.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "headway/search.hpp"
#include "search_kernels.hpp"

namespace headway {

inline constexpr float never = -std::numeric_limits<float>::infinity();

// The greatest of some scores and the sum of exp(score - greatest).
struct Mass {
    float max = never;
    double sum = 0.0;

    void add(const Mass& other);
    float log() const;  // of the sum
};

// A row of logits, measured once.
struct Row {
    const float* logits;  // (V)
    const float* peaks;   // the greatest of each block, which tell where the best tokens may be
    Mass mass;
    const std::uint32_t* allowed = nullptr;  // bits of the tokens that may come; null: all may
};

// Tokens that may come next, and the beam that they would follow.
struct Candidate {
    float score;  // of the beam with the token
    float log;    // of the token
    std::int32_t beam;
    Token token;
};

// The best so many of the candidates offered; of equal scores the first beam, then the first token.
class Best {
  public:
    void begin(std::size_t count);
    bool full() const { return heap_.size() == count_; }
    // What a score must be above to be among them, or at it with a lower token.
    float bar() const { return full() ? heap_.front().score : never; }
    void offer(const Candidate& candidate);
    std::span<const Candidate> sorted();  // best first; the end of offers

  private:
    std::size_t count_ = 0;
    std::vector<Candidate> heap_;  // the worst on top
};

class Scores {
  public:
    explicit Scores(std::int64_t vocabulary);

    // The scores of another row: its logits, or the logarithms of their probabilities.
    void begin(const Row& row, bool logs);

    bool knows(Token token) const { return token >= 0 && std::size_t(token) < place_.size(); }
    float at(Token token) const;
    void set(Token token, float score) { changed(token).score = score; }
    void forbid(std::span<const Token> tokens);
    // Only what the row's bits allow may come.
    void keep_allowed();
    // Only these may come, all with score 0.
    void force(std::span<const Token> tokens);
    // Divides what is negative by the factor and multiplies what is not; each token once.
    void penalize(Token token, float penalty);
    // Makes the probabilities of all sum to 1.
    void normalize();

    Mass mass() const;
    // Offers every token that can be among the best.
    void offer(float before, std::int32_t beam, Best& best) const;
    // Adds every token with at least this score, but none that may not come.
    void above(float least, std::vector<Candidate>& out) const;
    std::size_t vocabulary() const { return place_.size(); }

  private:
    struct Change {
        Token token;
        float score;
        bool penalized;
    };

    Change& changed(Token token);
    void clear();
    float unchanged(float logit) const;
    float limit(float before, float bar) const;
    // Calls visit(token, score) for tokens that no rule changed and whose logit is above the least,
    // which visit may raise.
    template <class Visit>
    void scan(float& least, Visit visit) const;

    const SearchKernels* kernels_ = nullptr;
    Row row_{};
    float shifts_[4]{};  // what is subtracted from a logit, one after the other
    bool forced_ = false;
    std::vector<Change> changes_;
    std::vector<std::uint32_t> place_;      // (V): of the token in changes, from 1 on; 0: not there
    std::vector<float> kept_, kept_peaks_;  // the row with -inf for what is not allowed
    mutable Tokens order_;
    mutable std::vector<float> peaks_;
};

}  // namespace headway
