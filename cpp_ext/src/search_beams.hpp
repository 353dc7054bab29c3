// Beam search, as transformers 5 does it.
#pragma once

#include "search_sentence.hpp"

namespace headway {

class Beams final : public Sentence {
  public:
    explicit Beams(SearchRequest request);

    void advance(Step& step) override;
    std::vector<Hypothesis> found() const override;

  private:
    struct Finished {
        Hypothesis hypothesis;
        float score;
        bool real;
    };
    struct Ranked {
        float score;
        std::int64_t place;  // among the candidates
    };

    void finish() override;
    std::vector<std::span<const Token>> rivals() const override;
    std::span<const Candidate> best(Step& step, std::size_t count);
    std::span<const Candidate> drawn(Step& step, std::size_t count);
    void keep(Hypothesis hypothesis, float sum);
    void go_on(std::span<const Candidate> found, std::span<const Ranked> chosen);
    bool no_hope() const;

    Next next(const Candidate& candidate) const {
        return {candidate.token, candidate.log, beams_[candidate.beam].line};
    }
    bool full() const { return finished_.size() == beams_.size(); }
    // What a hypothesis must be above to be among the finished ones.
    float bar() const { return full() ? finished_.back().score : out; }
    float divided(float score, std::int64_t length) const;

    std::int64_t length_ = 0;         // tokens after the prompt
    std::vector<Beam> beams_;         // best first
    std::vector<Finished> finished_;  // best first, not more than beams
    std::vector<Ranked> ranked_;      // these three: room for a step
    std::vector<Next> children_;
    std::vector<std::int64_t> rows_;
};

}  // namespace headway
