// Beam search on the GPU for many sources at once, as search.hpp has it on the processor.
#pragma once

#include <memory>
#include <vector>

#include "headway/cuda/device.hpp"
#include "headway/search.hpp"

namespace headway::cuda {

inline constexpr std::int32_t no_wrong_row = 0x7F7F7F7F;  // four bytes 0x7F

// One text to be written.
struct BeamSource {
    Tokens prompt, source;           // as in SearchRequest
    std::int64_t longest, shortest;  // the same
};

// What there shall be room for, where later sources may be longer than the first ones.
struct BeamRoom {
    std::int64_t longest = 0;  // tokens of prompt and continuation together
    std::int64_t source = 0;   // tokens of a source
};

struct BeamStep;

// Sources begin together and keep their rows to the end; with one beam the search is greedy. Given
// the same float32 log probabilities, the tokens are those of Searcher. For one thread at a time;
// steps only put work on their stream, the same one for all.
class Beams {
  public:
    // Letters: B sources, K beams, V vocabulary. Throws std::invalid_argument for what Searcher
    // refuses, and for settings that only it has: do_sample, num_beam_groups, force_words_ids,
    // stop_strings; also unless num_beams * max(2, 1 + end tokens) is at most 256. Throws Error.
    Beams(std::int64_t vocabulary, const SearchSettings& settings,
          const std::vector<BeamSource>& sources, const BeamRoom& room = {});
    ~Beams();

    // Begins anew in the same memory, with equally many sources and the same settings. Waits for
    // the stream. Throws std::invalid_argument as the constructor, and for what there is no room
    // for.
    void begin(const std::vector<BeamSource>& sources, Stream stream);

    // Rows of logits that the next step takes: B at first, then B * K.
    std::int64_t rows() const;
    std::int64_t every_row() const;  // B * K

    // Chooses the next tokens by logits (rows, V). A row with NaN or +inf stops the search: the
    // step changes nothing, nor do steps after it, and done() and found() throw. Throws
    // std::invalid_argument for a wrong shape, and Error.
    void step(const void* logits, Type type, std::int64_t rows, std::int64_t columns,
              Stream stream);

    // The same for work that is captured and done again: no account is kept of steps, so that it is
    // told whether this is the first one, which takes B rows. Others take B * K.
    void record(const void* logits, Type type, bool first, Stream stream);

    // In the GPU's memory, of the last step: the next token of each row, and the row of the logits
    // that it follows. As many rows as possible follow themselves. Rows of a source that is done
    // follow themselves with token 0.  // (B * K)
    std::int64_t* tokens() const;
    std::int64_t* parents() const;

    // Whether each source has ended, and behind them the row of wrong logits, or no_wrong_row.
    std::int32_t* flags() const;  // (B + 1)

    // These wait for the stream, and throw std::invalid_argument, naming the row, where logits were
    // wrong; then the search goes on as if that step had not been.
    std::vector<bool> done(Stream stream);                              // (B)
    std::vector<Hypothesis> found(std::int64_t source, Stream stream);  // best first
    std::vector<std::vector<Hypothesis>> found(Stream stream);          // of every source

  private:
    struct Room;

    void check_logits(Stream stream);

    std::unique_ptr<Room> room_;
    SearchSettings settings_;
    bool begun_ = false;
};

}  // namespace headway::cuda
