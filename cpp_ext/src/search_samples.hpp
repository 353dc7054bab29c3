// Search without beams by drawing tokens: as many samples as are asked for, each by itself.
#pragma once

#include "search_sentence.hpp"

namespace headway {

class Samples final : public Sentence {
  public:
    explicit Samples(SearchRequest request);

    void advance(Step& step) override;
    std::vector<Hypothesis> found() const override { return finished_; }

  private:
    void finish() override;
    void sort();
    std::vector<std::span<const Token>> rivals() const override;

    std::vector<Hypothesis> finished_;    // best first
    std::vector<std::uint32_t> samples_;  // which one each line is
    std::vector<std::uint32_t> kept_;     // these three: room for a step
    std::vector<Next> children_;
    std::vector<std::int64_t> rows_;
};

}  // namespace headway
