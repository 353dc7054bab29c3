// The search for the next tokens of many sentences at once, fed with logits.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "headway/array.hpp"

namespace headway {

using Token = std::int32_t;
using Tokens = std::vector<Token>;

enum class EarlyStopping { no, yes, never };

// Names and meanings are those of transformers' generate().
struct SearchSettings {
    std::int64_t num_beams = 1;
    std::int64_t num_return_sequences = 1;
    double length_penalty = 1.0;
    EarlyStopping early_stopping = EarlyStopping::no;
    double repetition_penalty = 1.0;
    std::int64_t no_repeat_ngram_size = 0;
    std::vector<Tokens> bad_words_ids;
    Tokens suppress_tokens;
    Tokens begin_suppress_tokens;
    Tokens forced_bos_token_id;  // none or one
    Tokens forced_eos_token_id;
    bool renormalize_logits = false;
    Tokens eos_token_id;
    std::int64_t encoder_no_repeat_ngram_size = 0;
    std::int64_t num_beam_groups = 1;
    double diversity_penalty = 0.0;
    Tokens pad_token_id;  // none or one
    bool do_sample = false;
    double temperature = 1.0;
    std::int64_t top_k = 50;  // 0: all
    double top_p = 1.0;
    double min_p = 0.0;
    double typical_p = 1.0;
    std::uint64_t seed = 0;
    std::vector<std::string> stop_strings;
    std::vector<std::vector<Tokens>> force_words_ids;  // phrases, each by its alternatives
};

// What each token adds to a text; the prompt's text counts too.
struct TokenTexts {
    std::vector<std::string> bytes;
};

// Which tokens may come, a bit each, the lowest first; borrowed from the caller.  // (rows, V / 32)
struct TokenBits {
    const std::uint32_t* data;
    std::int64_t rows;
    std::int64_t columns;  // rounded up

    const std::uint32_t* row(std::int64_t r) const { return data + r * columns; }
};

// What is asked for one sentence.
struct SearchRequest {
    Tokens prompt;  // what the decoder has read; tokens beyond the vocabulary are known to no rule
    Tokens source;  // what the encoder has read; without an encoder the prompt
    SearchSettings settings;
    std::int64_t longest;   // tokens of prompt and continuation together, at most
    std::int64_t shortest;  // the same, before an end token may come
    std::shared_ptr<const TokenTexts> texts = nullptr;  // for stop_strings
};

struct Hypothesis {
    Tokens tokens;            // after the prompt, end token included
    double score;             // sum of logs; of beams divided by length ** length_penalty
    std::vector<float> logs;  // log probability of each token, as the settings changed it
};

class Sentence;

// Sentences enter at any time and leave when they are finished. Each step takes one row of logits
// for every beam: one row for a sentence that has just entered; sentences stand in the order in
// which they entered. One thread at a time.
class Searcher {
  public:
    // Throws std::invalid_argument unless there is a token.
    explicit Searcher(std::int64_t vocabulary);
    ~Searcher();

    // Returns the sentence's key. Throws std::invalid_argument for settings that make no sense.
    std::int64_t add(SearchRequest request);

    // How many rows of logits the next step takes.
    std::int64_t rows() const;

    // Throws std::invalid_argument, and changes nothing, for a wrong shape, NaN and +inf; -inf
    // entries are welcome. allowed: null if all tokens may come; greedy search and samples end
    // where none may.  // (rows, V)
    void advance(const Matrix& logits, const TokenBits* allowed = nullptr);

    // Of the sentences that go on: what comes next in each row, and the row of the last logits
    // that it follows. As many rows as possible follow themselves.
    Tokens tokens() const;
    std::vector<std::int64_t> parents() const;

    // Keys of the sentences that the last step ended.
    const std::vector<std::int64_t>& finished() const { return finished_; }

    // These throw std::out_of_range for a key that is not there.
    // What has ended so far, best first; at the end empty where the settings forbid all.
    std::vector<Hypothesis> found(std::int64_t key) const;
    // Tokens after the prompt that can no longer change: the best hypothesis will begin with them.
    Tokens settled(std::int64_t key) const;
    // Ends the sentence now: what goes on is found as it stands, as if the longest were reached. It
    // has no rows any more.
    void end(std::int64_t key);
    // Forgets the sentence, whether finished or not. It has no rows any more.
    void drop(std::int64_t key);

  private:
    struct Scratch;
    struct Running {
        std::int64_t key;
        std::int64_t first;  // its first row of the last logits
        Sentence* sentence;
    };

    std::int64_t vocabulary_;
    std::int64_t next_key_ = 0;
    std::map<std::int64_t, std::unique_ptr<Sentence>> sentences_;
    std::vector<Running> running_;
    std::vector<std::int64_t> finished_;
    std::unique_ptr<Scratch> scratch_;
};

}  // namespace headway
