// What the settings of a search do to the scores, in the order in which generate() does it.
#include "search_rules.hpp"

#include <algorithm>

namespace headway {
namespace {

bool ends_with(std::span<const Token> tokens, std::span<const Token> end) {
    return tokens.size() >= end.size() && std::equal(end.rbegin(), end.rend(), tokens.rbegin());
}

// No token that would make a sequence of this size, among those of text, come again.
void forbid_repeats(Scores& scores, std::span<const Token> text, std::span<const Token> tokens,
                    std::size_t size) {
    if (tokens.size() + 1 < size) return;
    const auto last = tokens.last(size - 1);
    for (std::size_t i = 0; i + size <= text.size(); ++i)
        if (scores.knows(text[i + size - 1]) &&
            std::equal(last.begin(), last.end(), text.begin() + i))
            scores.set(text[i + size - 1], never);
}

}  // namespace

Rules::Rules(const SearchRequest& request) : request_(request) {
    const SearchSettings& settings = request.settings;
    const bool forced = !settings.forced_bos_token_id.empty() && request.prompt.size() == 1;
    first_free_ = static_cast<std::int64_t>(request.prompt.size()) + forced;
    for (const Tokens& word : settings.bad_words_ids)
        if (word.size() != 1 || !ends(word[0])) bad_words_.push_back(word);
}

bool Rules::ends(Token token) const {
    const Tokens& ends = request_.settings.eos_token_id;
    return std::find(ends.begin(), ends.end(), token) != ends.end();
}

void Rules::apply(Scores& scores, std::span<const Token> tokens) const {
    const SearchSettings& settings = request_.settings;
    const auto length = static_cast<std::int64_t>(tokens.size());
    if (settings.repetition_penalty != 1.0)
        for (const Token token : tokens)
            if (scores.knows(token))
                scores.penalize(token, static_cast<float>(settings.repetition_penalty));
    if (settings.no_repeat_ngram_size > 0)
        forbid_repeats(scores, tokens, tokens, settings.no_repeat_ngram_size);
    if (settings.encoder_no_repeat_ngram_size > 0)
        forbid_repeats(scores, request_.source, tokens, settings.encoder_no_repeat_ngram_size);
    for (const Tokens& word : bad_words_)
        if (ends_with(tokens, std::span(word).first(word.size() - 1)))
            scores.set(word.back(), never);
    if (length < request_.shortest) scores.forbid(settings.eos_token_id);
    scores.keep_allowed();
    if (length == 1 && !settings.forced_bos_token_id.empty())
        scores.force(settings.forced_bos_token_id);
    if (length == request_.longest - 1 && !settings.forced_eos_token_id.empty())
        scores.force(settings.forced_eos_token_id);
    scores.forbid(settings.suppress_tokens);
    if (length == first_free_) scores.forbid(settings.begin_suppress_tokens);
    // In sampling it comes last, after temperature and what follows that.
    if (settings.renormalize_logits && !settings.do_sample) scores.normalize();
}

}  // namespace headway
