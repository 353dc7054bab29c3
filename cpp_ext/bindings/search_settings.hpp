// A headway.core.search.Search as the library takes it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "headway/search.hpp"

namespace headway {

namespace nb = nanobind;

template <class T>
void take(const nb::handle& settings, const char* name, T& value) {
    value = nb::cast<T>(settings.attr(name));
}

inline void take(const nb::handle& settings, const char* name, Tokens& tokens) {
    const nb::object given = settings.attr(name);
    if (nb::isinstance<nb::int_>(given))
        tokens = {nb::cast<Token>(given)};
    else if (!given.is_none())
        tokens = nb::cast<Tokens>(given);
}

inline void take(const nb::handle& settings, const char* name, EarlyStopping& value) {
    const nb::object given = settings.attr(name);
    if (nb::isinstance<nb::str>(given))
        value = EarlyStopping::never;
    else
        value = nb::cast<bool>(given) ? EarlyStopping::yes : EarlyStopping::no;
}

inline void take(const nb::handle& settings, const char* name,
                 std::vector<std::vector<Tokens>>& value) {
    for (const nb::handle given : settings.attr(name)) {
        const bool one = nb::len(given) > 0 && nb::isinstance<nb::int_>(given[0]);
        value.push_back(one ? std::vector<Tokens>{nb::cast<Tokens>(given)}
                            : nb::cast<std::vector<Tokens>>(given));
    }
}

inline SearchSettings as_settings(const nb::handle& given) {
    SearchSettings out;
    take(given, "num_beams", out.num_beams);
    take(given, "num_return_sequences", out.num_return_sequences);
    take(given, "length_penalty", out.length_penalty);
    take(given, "early_stopping", out.early_stopping);
    take(given, "repetition_penalty", out.repetition_penalty);
    take(given, "no_repeat_ngram_size", out.no_repeat_ngram_size);
    take(given, "bad_words_ids", out.bad_words_ids);
    take(given, "suppress_tokens", out.suppress_tokens);
    take(given, "begin_suppress_tokens", out.begin_suppress_tokens);
    take(given, "forced_bos_token_id", out.forced_bos_token_id);
    take(given, "forced_eos_token_id", out.forced_eos_token_id);
    take(given, "renormalize_logits", out.renormalize_logits);
    take(given, "eos_token_id", out.eos_token_id);
    take(given, "encoder_no_repeat_ngram_size", out.encoder_no_repeat_ngram_size);
    take(given, "num_beam_groups", out.num_beam_groups);
    take(given, "diversity_penalty", out.diversity_penalty);
    take(given, "pad_token_id", out.pad_token_id);
    take(given, "do_sample", out.do_sample);
    take(given, "temperature", out.temperature);
    take(given, "top_k", out.top_k);
    take(given, "top_p", out.top_p);
    take(given, "min_p", out.min_p);
    take(given, "typical_p", out.typical_p);
    take(given, "seed", out.seed);
    take(given, "stop_strings", out.stop_strings);
    take(given, "force_words_ids", out.force_words_ids);
    return out;
}

}  // namespace headway
