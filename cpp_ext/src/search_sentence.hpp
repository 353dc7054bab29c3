// What the ways to search have in common: a sentence that takes rows of logits and has lines.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "search_rules.hpp"
#include "search_sampler.hpp"
#include "search_stop.hpp"

namespace headway {

// A score which takes a beam out of the running without making it -inf, as in transformers.
inline constexpr float out = -1e9f;

// The tokens of a row, prompt first, and what each of them after the prompt added to the score.
struct Line {
    Tokens tokens;
    std::vector<float> logs;
    StopStrings::State stop;  // of the text
};

// A token that goes on from a row of logits.
struct Next {
    Token token;
    float log;
    std::int64_t parent;
};

// The lines of one sentence. A line's place is its row of the next logits.
class Lines {
  public:
    // The strings stay the caller's, who keeps them in place.
    Lines(const Tokens& prompt, const StopStrings& stops);

    const Line& operator[](std::int64_t row) const { return lines_[row]; }
    // What each row goes on with. Empty before the first step.
    const std::vector<Next>& rows() const { return rows_; }

    // Goes on with these only. Says in rows where each of them went: the first child of a line
    // stays in its row, the others take rows without one, so that few caches must be copied.
    void go_on(std::span<const Next> children, std::vector<std::int64_t>& rows);

  private:
    const StopStrings& stops_;
    std::vector<Line> lines_;
    std::vector<Next> rows_;
};

// What there is for the step of a sentence: its rows, and room that all sentences share.
struct Step {
    std::span<const Row> rows;
    Scores& scores;
    Best& best;
    Sampler& sampler;
};

struct Beam {
    float score;
    std::int64_t line;
};

// Whether it does not go back to a beam that never began, or to one that has ended.
inline bool real(float score) { return score > out / 2; }

class Sentence {
  public:
    explicit Sentence(SearchRequest request);
    virtual ~Sentence() = default;
    Sentence(const Sentence&) = delete;
    Sentence& operator=(const Sentence&) = delete;

    std::int64_t width() const { return begun() ? std::int64_t(next().size()) : 1; }
    const std::vector<Next>& next() const { return lines_.rows(); }
    bool done() const { return done_; }

    virtual void advance(Step& step) = 0;
    // Lets what goes on end as it stands.
    void end() {
        if (!done_ && begun()) finish();
        done_ = true;
    }
    // What has ended so far, best first.
    virtual std::vector<Hypothesis> found() const = 0;
    // What the best hypothesis will begin with.
    Tokens settled() const;

  protected:
    // What goes on is found as it stands.
    virtual void finish() = 0;
    // Tokens after the prompt of all that may still become the best hypothesis.
    virtual std::vector<std::span<const Token>> rivals() const = 0;

    bool begun() const { return !next().empty(); }
    // The row of a line. At the first step there is one row for all.
    const Row& row(const Step& step, std::int64_t line) const {
        return step.rows[begun() ? line : 0];
    }
    std::span<const Token> written(std::int64_t line) const {
        return std::span(lines_[line].tokens).subspan(request_.prompt.size());
    }
    // What follows a beam for which no token may come: it stays, as a row must, but is out for
    // good.
    static Next dead(const Beam& beam) { return {0, never, beam.line}; }
    // Whether the token ends the line.
    bool ends(std::int64_t line, Token token) const {
        return rules_.ends(token) || stops_.met(lines_[line].stop, token);
    }
    // A line as it stands.
    Hypothesis so_far(std::int64_t line) const;
    // A line with the token that ends it.
    Hypothesis ended(const Next& last) const;

    const SearchRequest request_;
    const Rules rules_;
    const StopStrings stops_;
    Lines lines_;
    bool done_ = false;
};

}  // namespace headway
