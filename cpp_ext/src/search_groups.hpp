// Diverse beam search: groups of beams, each kept from the tokens of the groups before it; and
// beams that must come to some phrases.
// Source: Vijayakumar and others, "Diverse beam search" (2018), as transformers 4 does it.
#pragma once

#include "search_phrases.hpp"
#include "search_sentence.hpp"

namespace headway {

class Groups final : public Sentence {
  public:
    explicit Groups(SearchRequest request);

    void advance(Step& step) override;
    std::vector<Hypothesis> found() const override;

  private:
    struct Finished {
        Hypothesis hypothesis;
        bool real;
    };
    struct Group {
        std::vector<Beam> beams;         // best first
        std::vector<Finished> finished;  // in the order in which they ended, not more than beams
        bool done;
    };

    void finish() override;
    std::vector<std::span<const Token>> rivals() const override;
    void advance(Step& step, Group& group);
    std::span<const Candidate> candidates(Step& step, const Group& group);
    void push(const Scores& scores, const Beam& beam, std::int32_t place);
    void share(std::vector<Candidate>& chosen, const Group& group);
    bool met(std::int64_t line) const { return phrases_.met(phrases_.read(written(line))); }
    void avoid(Scores& scores) const;
    void keep(Group& group, Hypothesis hypothesis, float sum) const;
    void keep_open(Group& group, std::size_t first, std::span<const Beam> beams) const;
    bool no_hope(const Group& group, float best) const;
    double divided(float score, std::int64_t length) const;
    bool longest() const { return std::ssize(request_.prompt) + length_ >= request_.longest; }

    std::int64_t length_ = 0;  // tokens after the prompt
    Token padding_;            // what a group that is done goes on with
    std::vector<Group> groups_;
    const Phrases phrases_;
    std::vector<Candidate> pushed_;  // what goes on with a phrase, whatever its score
    Best whole_;                     // the best that goes on where all phrases are there
    Tokens chosen_;                  // in this step, by the groups before
    std::vector<Next> children_;
    std::vector<std::int64_t> rows_;
};

}  // namespace headway
