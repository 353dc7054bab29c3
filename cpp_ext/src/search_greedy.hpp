// Search without beams: always the most probable token.
#pragma once

#include "search_sentence.hpp"

namespace headway {

class Greedy final : public Sentence {
  public:
    explicit Greedy(SearchRequest request) : Sentence(std::move(request)) {}

    void advance(Step& step) override;
    std::vector<Hypothesis> found() const override;

  private:
    void finish() override {}  // it is found
    std::vector<std::span<const Token>> rivals() const override { return {written(0)}; }

    std::vector<std::int64_t> rows_;  // room for a step
};

}  // namespace headway
