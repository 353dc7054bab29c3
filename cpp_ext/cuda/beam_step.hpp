// What a step of beam search reads and writes in the GPU's memory, and its kernels.
#pragma once

#include <cstdint>

#include "headway/cuda/beams.hpp"

namespace headway::cuda {

inline constexpr std::int64_t most_candidates = 256;  // of a source
inline constexpr std::int64_t part = 4096;            // entries of a row that one block looks at
inline constexpr float never = -__builtin_huge_valf();
inline constexpr float out = -1e9f;  // as in search_sentence.hpp: a beam that is out of the running

struct TokenList {
    const std::int32_t* tokens;
    std::int64_t count;
};

// The greatest of some scores and the sum of exp(score - greatest).
struct PartMass {
    float max, sum;
};

// What is subtracted from a row's logits, and then from its scores as the rules left them.
struct Shifts {
    float max, log, rules_max, rules_log;
};

// Letters: B sources, K beams, V vocabulary, L tokens that a line has room for, P parts of a row, M
// candidates. A line is a row of tokens; a beam is a line's place in the ranking.
struct BeamStep {
    std::int64_t sources, beams, vocabulary, room, parts, wanted;  // B, K, V, L, P, M
    bool greedy, renormalize, first, stop_when_full, by_longest;
    float repetition_penalty;
    std::int64_t ngram, source_ngram;
    TokenList ends, suppressed, suppressed_at_first, forced_first, forced_last;
    const std::int32_t* bad_words;         // end to end
    const std::int64_t* bad_word_offsets;  // (bad_word_count + 1)
    std::int64_t bad_word_count;
    const float* divisors;         // (L + 1): of a hypothesis's score, by its tokens
    std::int64_t* limits;          // (B, 3): tokens of the prompt, longest, shortest
    std::int32_t* source_tokens;   // end to end
    std::int64_t* source_offsets;  // (B + 1)

    std::int32_t *done, *length;              // (B): whether all has ended; tokens after the prompt
    float* scores;                            // (B, K): of beams, best first
    std::int32_t* lines;                      // (B, K): of beams
    std::int32_t* line_tokens;                // (B, K, L): prompt first
    float* line_logs;                         // (B, K, L): of tokens after the prompt
    std::int32_t *ended_count, *ended_order;  // (B), (B, K): hypotheses, best first
    float* ended_scores;                      // (B, K), as all below
    std::int32_t *ended_real, *ended_length;
    std::int32_t* ended_tokens;  // (B, K, L)
    float* ended_logs;           // (B, K, L)

    std::int32_t* forced;  // (B, K): whether only marked tokens may come
    std::uint32_t *marked,
        *banned;  // (B, K, V / 32): or else what the penalty is for; what may not
    PartMass *masses, *rules_masses;  // (B, K, P)
    Shifts* shifts;                   // (B, K)
    std::uint64_t* candidates;        // (B, K, P, M)
    std::int32_t* wrong_row;          // of logits; or no_wrong_row

    std::int64_t *tokens, *parents;  // (B, K): what the step gives
};

// logits: (B, V) if first, else (B, K, V).
void beam_step(const BeamStep& step, const void* logits, Type type, Stream stream);

}  // namespace headway::cuda
