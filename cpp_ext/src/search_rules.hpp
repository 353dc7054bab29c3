// What the settings of a search do to the scores of the next token.
#pragma once

#include "search_scores.hpp"

namespace headway {

// The settings for one prompt.
class Rules {
  public:
    // The request stays the caller's, who keeps it in place.
    explicit Rules(const SearchRequest& request);

    // tokens: prompt and what came after it.
    void apply(Scores& scores, std::span<const Token> tokens) const;

    bool ends(Token token) const;

  private:
    const SearchRequest& request_;
    std::vector<Tokens> bad_words_;
    std::int64_t first_free_;  // length at which the first token is chosen that is not forced
};

}  // namespace headway
