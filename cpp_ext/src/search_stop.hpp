// Whether a text contains one of some strings, token by token.
#pragma once

#include <array>
#include <string>

#include "headway/search.hpp"

namespace headway {

// An automaton over the tokens' bytes.
// Source: Aho and Corasick, "Efficient string matching" (1975).
class StopStrings {
  public:
    using State = std::int32_t;  // the longest beginning of a string that the text ends with

    // No string may be empty; texts may be null where there are no strings.
    StopStrings(const std::vector<std::string>& strings, std::shared_ptr<const TokenTexts> texts);

    State after(State state, Token token) const { return run(state, token).state; }
    // Whether a string ends within the token.
    bool met(State state, Token token) const { return run(state, token).met; }

  private:
    struct Node {
        std::array<State, 256> next{};
        bool met = false;
    };
    struct Run {
        State state;
        bool met;
    };

    Run run(State state, Token token) const;

    std::vector<Node> nodes_;
    std::shared_ptr<const TokenTexts> texts_;
};

}  // namespace headway
