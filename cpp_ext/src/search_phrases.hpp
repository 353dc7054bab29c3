// Phrases that a text must contain, and how far it has come with them.
#pragma once

#include <span>

#include "headway/search.hpp"

namespace headway {

// Each is one of some alternatives. They come in any order, one after the other.
class Phrases {
  public:
    struct Progress {
        std::vector<std::size_t> pending;  // phrases that have not begun
        std::size_t at;                    // the one that has
        Tokens begun;                      // of it; none if none has
    };

    explicit Phrases(const std::vector<std::vector<Tokens>>& wanted);

    bool none() const { return wanted_.empty(); }
    // Of the tokens of a text.
    Progress read(std::span<const Token> tokens) const;
    void add(Progress& progress, Token token) const;
    static bool met(const Progress& progress) {
        return progress.pending.empty() && progress.begun.empty();
    }
    // Tokens that go on with a phrase that has begun, or begin one.
    Tokens next(const Progress& progress) const;
    // How many tokens still must come.
    std::int64_t left(const Progress& progress) const;
    // Tokens of phrases that are there, each counted as if it were as long as the longest.
    std::size_t bank(const Progress& progress) const;

  private:
    enum class Fit { no, begins, whole };
    Fit fit(std::size_t phrase, std::span<const Token> tokens) const;

    const std::vector<std::vector<Tokens>>& wanted_;
    std::vector<std::size_t> lengths_;  // of the longest alternative of each
    std::vector<std::int64_t> least_;   // of the shortest
    std::size_t longest_ = 0;
};

}  // namespace headway
