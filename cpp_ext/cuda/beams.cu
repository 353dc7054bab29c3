// A step of beam search: mark what rules change, measure the rows, select candidates, advance the
// beams.
#include "beam_step.hpp"
#include "device.cuh"

namespace headway::cuda {
namespace {

constexpr int threads = 256;
constexpr int own_entries = part / threads;  // of each thread

// Which line of which source a row is.
struct Line {
    std::int64_t row, source, place;
};

__device__ Line line_of(const BeamStep& step, std::int64_t row) {
    return {row, row / step.beams, row % step.beams};
}

// At the first step there is one line, and one row of logits, for all beams.
__device__ bool idle(const BeamStep& step, const Line& line) {
    return step.done[line.source] || (step.first && line.place > 0);
}

__device__ std::int64_t logits_row(const BeamStep& step, const Line& line) {
    return step.first ? line.source : line.row;
}

// 1. Rules, as search_rules.cpp has them: a bit for each token that they change.

__device__ void mark(std::uint32_t* bits, std::int64_t vocabulary, std::int32_t token) {
    if (token >= 0 && token < vocabulary) atomicOr(bits + token / 32, 1u << token % 32);
}

__device__ bool has(const std::uint32_t* bits, std::int64_t token) {
    return bits[token / 32] >> token % 32 & 1;
}

__device__ void mark_all(std::uint32_t* bits, std::int64_t vocabulary, const std::int32_t* tokens,
                         std::int64_t count) {
    for (std::int64_t i = threadIdx.x; i < count; i += threads) mark(bits, vocabulary, tokens[i]);
}

__device__ bool same(const std::int32_t* a, const std::int32_t* b, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
        if (a[i] != b[i]) return false;
    return true;
}

// Tokens that would make a sequence of this size, among those of text, come again.
__device__ void mark_repeats(std::uint32_t* bits, std::int64_t vocabulary, const std::int32_t* text,
                             std::int64_t text_length, const std::int32_t* tokens,
                             std::int64_t length, std::int64_t size) {
    if (size == 0 || length + 1 < size) return;
    for (std::int64_t i = threadIdx.x; i + size <= text_length; i += threads)
        if (same(tokens + length - (size - 1), text + i, size - 1))
            mark(bits, vocabulary, text[i + size - 1]);
}

__global__ void __launch_bounds__(threads) mark_kernel(BeamStep step) {
    const Line line = line_of(step, blockIdx.x);
    if (idle(step, line)) return;
    const std::int64_t vocabulary = step.vocabulary, words = (vocabulary + 31) / 32;
    std::uint32_t* marked = step.marked + line.row * words;
    std::uint32_t* banned = step.banned + line.row * words;
    for (std::int64_t w = threadIdx.x; w < words; w += threads) marked[w] = banned[w] = 0;
    __syncthreads();
    const std::int64_t* limits = step.limits + 3 * line.source;
    const std::int64_t prompt = limits[0], longest = limits[1], shortest = limits[2];
    const std::int64_t length = prompt + step.length[line.source];
    const std::int32_t* tokens = step.line_tokens + line.row * step.room;
    TokenList forced{};
    if (length == 1) forced = step.forced_first;
    if (length == longest - 1 && step.forced_last.count > 0) forced = step.forced_last;
    if (threadIdx.x == 0) step.forced[line.row] = forced.count > 0;
    if (forced.count > 0) {
        mark_all(marked, vocabulary, forced.tokens, forced.count);
    } else {
        if (step.repetition_penalty != 1.0f) mark_all(marked, vocabulary, tokens, length);
        mark_repeats(banned, vocabulary, tokens, length, tokens, length, step.ngram);
        const std::int64_t first = step.source_offsets[line.source];
        mark_repeats(banned, vocabulary, step.source_tokens + first,
                     step.source_offsets[line.source + 1] - first, tokens, length,
                     step.source_ngram);
        for (std::int64_t w = threadIdx.x; w < step.bad_word_count; w += threads) {
            const std::int32_t* word = step.bad_words + step.bad_word_offsets[w];
            const std::int64_t before = step.bad_word_offsets[w + 1] - step.bad_word_offsets[w] - 1;
            if (length >= before && same(tokens + length - before, word, before))
                mark(banned, vocabulary, word[before]);
        }
        if (length < shortest) mark_all(banned, vocabulary, step.ends.tokens, step.ends.count);
    }
    mark_all(banned, vocabulary, step.suppressed.tokens, step.suppressed.count);
    const bool begins_forced = step.forced_first.count > 0 && prompt == 1;
    if (length == prompt + begins_forced)
        mark_all(banned, vocabulary, step.suppressed_at_first.tokens,
                 step.suppressed_at_first.count);
}

// 2. Scores, in the order and with the roundings of search_scores.cpp.

struct Scorer {
    Shifts shifts;
    float penalty;
    bool forced;
    const std::uint32_t *marked, *banned;

    // As the rules leave it, before it is normalized.
    __device__ float with_rules(float logit, std::int64_t token) const {
        if (has(banned, token)) return never;
        if (forced) return has(marked, token) ? 0.0f : never;
        const float score = (logit - shifts.max) - shifts.log;
        if (!has(marked, token)) return score;
        return score < 0 ? score * penalty : score / penalty;
    }
    __device__ float operator()(float logit, std::int64_t token) const {
        return (with_rules(logit, token) - shifts.rules_max) - shifts.rules_log;
    }
};

__device__ Scorer scorer(const BeamStep& step, const Line& line, const Shifts& shifts) {
    const std::int64_t words = (step.vocabulary + 31) / 32;
    return {shifts, step.repetition_penalty, step.forced[line.row] != 0,
            step.marked + line.row * words, step.banned + line.row * words};
}

// Of the parts together, by every warp for itself: the maximum and the logarithm of the sum, or
// zeros where no token may come.
__device__ void add_up(const PartMass* parts, std::int64_t count, float& max, float& log) {
    float most = never;
    for (std::int64_t p = threadIdx.x % warp; p < count; p += warp)
        most = fmaxf(most, parts[p].max);
    most = reduce_lanes<Greater>(most);
    max = log = 0.0f;
    if (most == never) return;
    double sum = 0.0;
    for (std::int64_t p = threadIdx.x % warp; p < count; p += warp)
        sum += double(parts[p].sum) * exp(double(parts[p].max) - double(most));
    max = most;
    log = static_cast<float>(::log(reduce_lanes<Add>(sum)));
}

// What must be known before the rules: a greedy search takes the logits as they are.
__device__ Shifts shifts_before_rules(const BeamStep& step, const Line& line) {
    Shifts shifts{};
    if (!step.greedy)
        add_up(step.masses + line.row * step.parts, step.parts, shifts.max, shifts.log);
    return shifts;
}

// A thread's entries of a part of a row, each with its token.
template <class T>
struct Entries {
    static constexpr int loads = own_entries / per_load<T>;
    float logits[loads][per_load<T>];
    std::int64_t first;

    __device__ Entries(const T* all, std::int64_t row, std::int64_t columns)
        : first(std::int64_t(blockIdx.x) * part + threadIdx.x * per_load<T>) {
        const bool aligned = rows_aligned(all, columns);
        for (int l = 0; l < loads; ++l)
            load(all + row * columns, first + l * threads * per_load<T>, columns, aligned, never,
                 logits[l]);
    }
    template <class Visit>
    __device__ void each(std::int64_t columns, Visit visit) {
        for (int l = 0; l < loads; ++l)
            for (int i = 0; i < per_load<T>; ++i) {
                const std::int64_t token = first + l * threads * per_load<T> + i;
                if (token < columns) visit(logits[l][i], token, l * per_load<T> + i);
            }
    }
};

struct MeasureRoom {
    float max[threads / warp], sum[threads / warp];
};

template <class T, bool rules>
__global__ void __launch_bounds__(threads, 2) measure_kernel(BeamStep step, const T* logits) {
    MeasureRoom& room = shared<MeasureRoom>();
    const Line line = line_of(step, blockIdx.y);
    if (idle(step, line)) return;
    const std::int64_t row = logits_row(step, line);
    Entries<T> entries(logits, row, step.vocabulary);
    bool wrong = false;
    entries.each(step.vocabulary,
                 [&](float& x, std::int64_t, int) { wrong |= x != x || x == infinity; });
    if (wrong) atomicMin(step.wrong_row, static_cast<std::int32_t>(row));
    if (rules) {
        const Scorer score = scorer(step, line, shifts_before_rules(step, line));
        entries.each(step.vocabulary,
                     [&](float& x, std::int64_t token, int) { x = score.with_rules(x, token); });
    }
    float max = never, sum = 0.0f;
    entries.each(step.vocabulary, [&](float x, std::int64_t, int) { max = fmaxf(max, x); });
    max = reduce_block<Greater>(max, room.max);
    if (max > never)
        entries.each(step.vocabulary, [&](float x, std::int64_t, int) { sum += expf(x - max); });
    sum = reduce_block<Add>(sum, room.sum);
    PartMass* masses = rules ? step.rules_masses : step.masses;
    if (threadIdx.x == 0) masses[line.row * step.parts + blockIdx.x] = {max, sum};
}

// 3. Candidates: keys that sort as search_scores.cpp sorts, by score, then beam, then token.

__device__ std::uint64_t key_of(float score, std::uint32_t place) {
    if (score == never) return 0;
    const float positive_zero = score + 0.0f;
    std::uint32_t bits;
    __builtin_memcpy(&bits, &positive_zero, sizeof(bits));
    bits ^= bits >> 31 ? 0xFFFFFFFFu : 0x80000000u;
    return std::uint64_t(bits) << 32 | std::uint32_t(~place);
}

__device__ float score_of(std::uint64_t key) {
    std::uint32_t bits = static_cast<std::uint32_t>(key >> 32);
    bits ^= bits >> 31 ? 0x80000000u : 0xFFFFFFFFu;
    float score;
    __builtin_memcpy(&score, &bits, sizeof(score));
    return score;
}

// The greatest first. Source: Batcher, "Sorting networks and their applications" (1968).
__device__ void sort(std::uint64_t* keys, int count) {  // a power of two
    for (int size = 2; size <= count; size *= 2)
        for (int step = size / 2; step > 0; step /= 2) {
            for (int i = threadIdx.x; i < count; i += threads) {
                const int other = i ^ step;
                if (other < i || (keys[i] > keys[other]) == ((i & size) == 0)) continue;
                const std::uint64_t held = keys[i];
                keys[i] = keys[other];
                keys[other] = held;
            }
            __syncthreads();
        }
}

struct TopRoom {
    std::uint64_t greatest[threads];  // of each thread
    int kept;
};

__host__ __device__ inline int power_of_two(std::int64_t least) {
    int n = 1;
    while (n < least) n *= 2;
    return n;
}

__host__ __device__ inline int kept_room(std::int64_t wanted) {
    return power_of_two(wanted * own_entries);
}

// Leaves the greatest of all threads' keys in kept (wanted), in order, with zeros behind them. What
// is less than so many threads' greatest keys cannot be among them, so that only the entries of so
// many threads must be sorted.
__device__ void top(const std::uint64_t (&own)[own_entries], std::int64_t wanted, TopRoom& room,
                    std::uint64_t* kept) {
    std::uint64_t most = 0;
    for (const std::uint64_t key : own) most = key > most ? key : most;
    room.greatest[threadIdx.x] = most;
    if (threadIdx.x == 0) room.kept = 0;
    __syncthreads();
    sort(room.greatest, threads);
    const std::uint64_t bar = room.greatest[wanted - 1];
    for (const std::uint64_t key : own)
        if (key != 0 && key >= bar) kept[atomicAdd(&room.kept, 1)] = key;
    __syncthreads();
    const int count = power_of_two(room.kept > wanted ? room.kept : wanted);
    for (int i = room.kept + static_cast<int>(threadIdx.x); i < count; i += threads) kept[i] = 0;
    __syncthreads();
    sort(kept, count);
}

template <class T>
__global__ void __launch_bounds__(threads) select_kernel(BeamStep step, const T* logits) {
    TopRoom& room = shared<TopRoom>();
    auto* kept = reinterpret_cast<std::uint64_t*>(&room + 1);
    const std::int64_t beam = blockIdx.y, source = beam / step.beams;
    if (step.done[source]) return;
    std::uint64_t* chosen = step.candidates + (beam * step.parts + blockIdx.x) * step.wanted;
    const float before = step.greedy ? 0.0f : step.scores[beam];
    std::uint64_t own[own_entries] = {};
    if (before > never) {
        const Line line = line_of(step, source * step.beams + step.lines[beam]);
        Shifts shifts = shifts_before_rules(step, line);
        if (step.renormalize)
            add_up(step.rules_masses + line.row * step.parts, step.parts, shifts.rules_max,
                   shifts.rules_log);
        if (blockIdx.x == 0 && threadIdx.x == 0) step.shifts[line.row] = shifts;
        const Scorer score = scorer(step, line, shifts);
        Entries<T> entries(logits, logits_row(step, line), step.vocabulary);
        const auto place = static_cast<std::uint32_t>((beam % step.beams) * step.vocabulary);
        entries.each(step.vocabulary, [&](float x, std::int64_t token, int i) {
            own[i] = key_of(score(x, token) + before, place + static_cast<std::uint32_t>(token));
        });
    }
    top(own, step.wanted, room, kept);
    for (std::int64_t i = threadIdx.x; i < step.wanted; i += threads) chosen[i] = kept[i];
}

// 4. The beams of a source go on, as search_beams.cpp has it.

struct Candidate {
    float score, log;
    std::int32_t line, token;
    bool end;
};

struct AdvanceRoom {
    TopRoom top;
    Candidate found[most_candidates];
    std::int32_t count, chosen[most_candidates];                         // by their new rank
    std::int32_t row_of[most_candidates];                                // of a beam's line
    std::int32_t child_at[most_candidates], parent_of[most_candidates];  // of a row
    std::int32_t ended_at[most_candidates];  // the candidate that a hypothesis comes from, or -1
};

__device__ bool real(float score) { return score > out / 2; }

__device__ bool is_end(const BeamStep& step, std::int32_t token) {
    for (std::int64_t i = 0; i < step.ends.count; ++i)
        if (step.ends.tokens[i] == token) return true;
    return false;
}

// Of a source: its arrays.
struct Source {
    std::int64_t number, first, prompt, longest, length;  // first: row; length: after this step

    __device__ Source(const BeamStep& step, std::int64_t b)
        : number(b),
          first(b * step.beams),
          prompt(step.limits[3 * b]),
          longest(step.limits[3 * b + 1]),
          length(step.length[b] + 1) {}
    __device__ bool at_longest() const { return prompt + length >= longest; }
};

// The best candidates of all beams and parts.
template <class T>
__device__ void gather(const BeamStep& step, const T* logits, const Source& source,
                       AdvanceRoom& room, std::uint64_t* kept) {
    const std::int64_t each = step.parts * step.wanted, every = step.beams * each;
    const std::uint64_t* given = step.candidates + source.first * each;
    for (std::int64_t from = 0; from < every; from += part - step.wanted) {
        std::uint64_t own[own_entries];
        for (int e = 0; e < own_entries; ++e) {
            const std::int64_t i = e * threads + threadIdx.x, next = from + i - step.wanted;
            own[e] = 0;
            if (i >= step.wanted && next < every) own[e] = given[next];
            if (i < step.wanted && from > 0) own[e] = kept[i];
        }
        __syncthreads();
        top(own, step.wanted, room.top, kept);
    }
    if (threadIdx.x == 0) room.count = 0;
    __syncthreads();
    if (threadIdx.x >= step.wanted || kept[threadIdx.x] == 0) return;
    const std::uint64_t key = kept[threadIdx.x];
    const auto place = static_cast<std::uint32_t>(~key);
    const auto beam = static_cast<std::int32_t>(place / step.vocabulary);
    const auto token = static_cast<std::int32_t>(place % step.vocabulary);
    const std::int32_t at = step.lines[source.first + beam];
    const Line line = line_of(step, source.first + at);
    const Scorer score = scorer(step, line, step.shifts[line.row]);
    const float logit = as_float(logits[logits_row(step, line) * step.vocabulary + token]);
    room.found[threadIdx.x] = {score_of(key), score(logit, token), at, token,
                               source.at_longest() || is_end(step, token)};
    atomicAdd(&room.count, 1);
}

// A hypothesis among those that have ended, if it is good enough. By one thread.
__device__ void keep(const BeamStep& step, const Source& source, AdvanceRoom& room,
                     std::int32_t candidate) {
    std::int32_t& count = step.ended_count[source.number];
    std::int32_t* order = step.ended_order + source.first;
    float* scores = step.ended_scores + source.first;
    const float score = room.found[candidate].score / step.divisors[source.length];
    const bool full = count == step.beams;
    if (!(score > (full ? scores[order[count - 1]] : out))) return;
    const std::int32_t slot = full ? order[--count] : count;
    std::int32_t place = count++;
    for (; place > 0 && score > scores[order[place - 1]]; --place) order[place] = order[place - 1];
    order[place] = slot;
    scores[slot] = score;
    step.ended_real[source.first + slot] = real(room.found[candidate].score);
    step.ended_length[source.first + slot] = static_cast<std::int32_t>(source.length);
    room.ended_at[slot] = candidate;
}

// The first child of a line stays in its row, the others take rows without one. By one thread.
__device__ void share_rows(const BeamStep& step, const Source& source, AdvanceRoom& room) {
    const std::int32_t best = step.lines[source.first];
    for (std::int32_t i = 0; i < step.beams; ++i) room.child_at[i] = room.row_of[i] = -1;
    for (std::int32_t i = 0; i < step.beams; ++i) {
        const std::int32_t parent = i < room.count ? room.found[room.chosen[i]].line : best;
        if (room.child_at[parent] >= 0) continue;
        room.child_at[parent] = i;
        room.row_of[i] = room.parent_of[parent] = parent;
    }
    for (std::int32_t i = 0, free = 0; i < step.beams; ++i) {
        if (room.row_of[i] >= 0) continue;
        while (room.child_at[free] >= 0) ++free;
        room.child_at[free] = i;
        room.row_of[i] = free;
        room.parent_of[free] = i < room.count ? room.found[room.chosen[i]].line : best;
    }
}

__device__ void copy(const Source& source, std::int64_t count, const std::int32_t* tokens,
                     const float* logs, std::int32_t* to_tokens, float* to_logs) {
    for (std::int64_t t = threadIdx.x; t < count; t += threads) to_tokens[t] = tokens[t];
    for (std::int64_t t = threadIdx.x; t + 1 < source.length; t += threads) to_logs[t] = logs[t];
}

// Hypotheses that ended in this step: the tokens after the prompt of the line, and the last one.
__device__ void write_ended(const BeamStep& step, const Source& source, const AdvanceRoom& room) {
    for (std::int64_t slot = 0; slot < step.beams; ++slot) {
        if (room.ended_at[slot] < 0) continue;
        const Candidate& last = room.found[room.ended_at[slot]];
        const std::int64_t from = (source.first + last.line) * step.room;
        const std::int64_t to = (source.first + slot) * step.room;
        copy(source, source.length - 1, step.line_tokens + from + source.prompt,
             step.line_logs + from, step.ended_tokens + to, step.ended_logs + to);
        if (threadIdx.x != 0) continue;
        step.ended_tokens[to + source.length - 1] = last.token;
        step.ended_logs[to + source.length - 1] = last.log;
    }
}

// Lines go on. What is copied comes from lines that stay in their rows.
__device__ void write_lines(const BeamStep& step, const Source& source, const AdvanceRoom& room) {
    const std::int64_t written = source.prompt + source.length - 1;
    for (std::int64_t row = 0; row < step.beams; ++row) {
        if (room.parent_of[row] == row) continue;
        const std::int64_t from = (source.first + room.parent_of[row]) * step.room;
        const std::int64_t to = (source.first + row) * step.room;
        copy(source, written, step.line_tokens + from, step.line_logs + from, step.line_tokens + to,
             step.line_logs + to);
    }
    __syncthreads();
    if (threadIdx.x >= step.beams) return;
    const std::int64_t row = source.first + threadIdx.x;
    const std::int32_t child = room.child_at[threadIdx.x];
    Candidate next{never, never, 0, 0, false};  // of a beam for which no token may come
    if (child < room.count) next = room.found[room.chosen[child]];
    step.line_tokens[row * step.room + written] = next.token;
    step.line_logs[row * step.room + source.length - 1] = next.log;
    step.tokens[row] = next.token;
    step.parents[row] = step.first ? source.number : source.first + room.parent_of[threadIdx.x];
}

__device__ float value(const Candidate& found) { return found.score + (found.end ? out : 0.0f); }

// Whether no beam that goes on would come among those that have ended.
__device__ bool no_hope(const BeamStep& step, const Source& source, float best) {
    const std::int32_t count = step.ended_count[source.number];
    const bool full = count == step.beams;
    if (step.stop_when_full && full) return true;
    const float worst =
        full ? step.ended_scores[source.first + step.ended_order[source.first + count - 1]] : out;
    const std::int64_t length = step.by_longest ? source.longest - source.prompt : source.length;
    return !real(best) || best / step.divisors[length] <= worst;
}

__device__ void advance_beams(const BeamStep& step, const Source& source, AdvanceRoom& room) {
    const auto own = static_cast<std::int32_t>(threadIdx.x);
    if (own < step.beams) room.ended_at[own] = -1;
    if (own < room.count) {
        std::int32_t rank = 0;
        const float mine = value(room.found[own]);
        for (std::int32_t i = 0; i < room.count; ++i) {
            const float theirs = value(room.found[i]);
            rank += theirs > mine || (theirs == mine && i < own);
        }
        room.chosen[rank] = own;
    }
    __syncthreads();
    if (own == 0) {
        bool way_on = false;
        for (std::int32_t i = 0; i < room.count; ++i) {
            if (room.found[i].end && i < step.beams) keep(step, source, room, i);
            way_on |= !room.found[i].end;
        }
        share_rows(step, source, room);
        const float best = room.count > 0 ? value(room.found[room.chosen[0]]) : never;
        step.done[source.number] = !way_on || no_hope(step, source, best);
    }
    __syncthreads();
    write_ended(step, source, room);
    __syncthreads();
    write_lines(step, source, room);
    if (own >= step.beams) return;
    step.scores[source.first + own] =
        own < room.count ? value(room.found[room.chosen[own]]) : never;
    step.lines[source.first + own] = room.row_of[own];
}

// The most probable token, or 0 where none may come, as search_greedy.cpp has it.
__device__ void advance_greedy(const BeamStep& step, const Source& source, AdvanceRoom& room) {
    float max, log;
    add_up(step.rules_masses + source.first * step.parts, step.parts, max, log);
    if (threadIdx.x == 0) {
        Candidate& best = room.found[0];
        const bool none = room.count == 0;
        if (none) best = {never, never, 0, 0, is_end(step, 0)};
        if (step.renormalize) max = log = 0.0f;  // they are subtracted already
        if (!none) best.log = (best.score - max) - log;
        room.count = 1;
        room.chosen[0] = room.child_at[0] = room.parent_of[0] = 0;
        step.done[source.number] = source.at_longest() || best.end;
    }
    __syncthreads();
    write_lines(step, source, room);
}

template <class T>
__global__ void __launch_bounds__(threads) advance_kernel(BeamStep step, const T* logits) {
    AdvanceRoom& room = shared<AdvanceRoom>();
    const Source source(step, blockIdx.x);
    if (*step.wrong_row != no_wrong_row) return;
    if (step.done[source.number]) {
        if (threadIdx.x < step.beams) {
            step.tokens[source.first + threadIdx.x] = 0;
            step.parents[source.first + threadIdx.x] = source.first + threadIdx.x;
        }
        return;
    }
    gather(step, logits, source, room, reinterpret_cast<std::uint64_t*>(&room + 1));
    __syncthreads();
    if (step.greedy)
        advance_greedy(step, source, room);
    else
        advance_beams(step, source, room);
    if (threadIdx.x == 0) step.length[source.number] = static_cast<std::int32_t>(source.length);
}

template <class T>
void run(const BeamStep& step, const T* logits, Stream stream) {
    const auto lines = static_cast<unsigned>(step.sources * step.beams);
    const dim3 grid(static_cast<unsigned>(step.parts), lines);
    const std::size_t kept = kept_room(step.wanted) * sizeof(std::uint64_t);
    launch(mark_kernel, lines, threads, 0, stream, step);
    if (!step.greedy)
        launch(measure_kernel<T, false>, grid, threads, sizeof(MeasureRoom), stream, step, logits);
    if (step.greedy || step.renormalize)
        launch(measure_kernel<T, true>, grid, threads, sizeof(MeasureRoom), stream, step, logits);
    launch(select_kernel<T>, grid, threads, sizeof(TopRoom) + kept, stream, step, logits);
    launch(advance_kernel<T>, static_cast<unsigned>(step.sources), threads,
           sizeof(AdvanceRoom) + kept, stream, step, logits);
}

}  // namespace

void beam_step(const BeamStep& step, const void* logits, Type type, Stream stream) {
    with_type(type, [&](auto element) {
        run(step, static_cast<const decltype(element)*>(logits), stream);
    });
}

}  // namespace headway::cuda
