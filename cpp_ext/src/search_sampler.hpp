// Tokens drawn at random from those that the settings of sampling leave.
#pragma once

#include <array>

#include "search_scores.hpp"

namespace headway {

class Sampler {
  public:
    void begin() { kept_.clear(); }

    // Adds what the settings of sampling leave of a row, in the order and with the borders of
    // transformers. Their logs are those of probabilities that sum to 1, unless for beams.
    void add(const Scores& scores, const SearchSettings& settings, float before, std::int32_t beam,
             Best& best);

    // Draws so many, or as many as there are, by exp(score), each once, in the order of drawing.
    // The counter's first number is the draw's.
    std::span<const Candidate> draw(std::size_t count, std::array<std::uint32_t, 4> counter,
                                    std::uint64_t seed);

  private:
    void take(const Scores& scores, std::size_t top_k, Best& best);
    void keep_top_p(double share, std::size_t least);
    void keep_min_p(double share, std::size_t least);
    void keep_typical(double share, std::size_t least);
    // Weights of tokens by their scores.
    void weigh(std::span<const Candidate> tokens);

    std::vector<Candidate> kept_;  // of all rows
    std::vector<Candidate> row_;   // of one
    std::vector<Candidate> drawn_;
    std::vector<float> weights_;  // exp(score - most_)
    float most_ = never;
    double sum_ = 0.0;  // of the weights
};

}  // namespace headway
