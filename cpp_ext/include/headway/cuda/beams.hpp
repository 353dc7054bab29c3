// Beam search on the GPU for many sources at once, as search.hpp has it on the processor.
#pragma once

#include <memory>
#include <vector>

#include "headway/cuda/device.hpp"
#include "headway/search.hpp"

namespace headway::cuda {

// One text to be written.
struct BeamSource {
    Tokens prompt, source;           // as in SearchRequest
    std::int64_t longest, shortest;  // the same
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
          const std::vector<BeamSource>& sources);
    ~Beams();

    // Rows of logits that the next step takes: B at first, then B * K.
    std::int64_t rows() const;
    std::int64_t every_row() const;  // B * K

    // Chooses the next tokens by logits (rows, V). A row with NaN or +inf stops the search: the
    // step changes nothing, nor do steps after it, and done() and found() throw. Throws
    // std::invalid_argument for a wrong shape, and Error.
    void step(const void* logits, Type type, std::int64_t rows, std::int64_t columns,
              Stream stream);

    // In the GPU's memory, of the last step: the next token of each row, and the row of the logits
    // that it follows. As many rows as possible follow themselves. Rows of a source that is done
    // follow themselves with token 0.  // (B * K)
    std::int64_t* tokens() const;
    std::int64_t* parents() const;

    // These wait for the stream, and throw std::invalid_argument, naming the row, where logits were
    // wrong; then the search goes on as if that step had not been.
    std::vector<bool> done(Stream stream);                              // (B)
    std::vector<Hypothesis> found(std::int64_t source, Stream stream);  // best first

  private:
    struct Room;

    void check_logits(Stream stream);

    std::unique_ptr<Room> room_;
    std::int64_t wanted_;  // hypotheses of a source
    bool begun_ = false;
};

}  // namespace headway::cuda
