// Whether a text contains one of some strings, token by token.
#include "search_stop.hpp"

namespace headway {

StopStrings::StopStrings(const std::vector<std::string>& strings,
                         std::shared_ptr<const TokenTexts> texts)
    : nodes_(strings.empty() ? 0 : 1), texts_(std::move(texts)) {
    if (strings.empty()) return;
    for (const std::string& string : strings) {
        State at = 0;
        for (const unsigned char byte : string) {
            if (nodes_[at].next[byte] == 0) {
                nodes_[at].next[byte] = static_cast<State>(nodes_.size());
                nodes_.emplace_back();
            }
            at = nodes_[at].next[byte];
        }
        nodes_[at].met = true;
    }
    // Shorter beginnings first: where one has no way on, its longest end that is a beginning goes
    // on.
    std::vector<State> end(nodes_.size(), 0), order{0};
    for (std::size_t i = 0; i < order.size(); ++i) {
        const State at = order[i];
        for (std::size_t byte = 0; byte < 256; ++byte) {
            State& next = nodes_[at].next[byte];
            const State other = at == 0 ? 0 : nodes_[end[at]].next[byte];
            if (next == 0) {
                next = other;
                continue;
            }
            end[next] = other;
            nodes_[next].met |= nodes_[other].met;
            order.push_back(next);
        }
    }
}

StopStrings::Run StopStrings::run(State state, Token token) const {
    Run run{state, false};
    if (nodes_.empty()) return run;
    if (std::size_t(token) >= texts_->bytes.size()) return {0, false};
    for (const unsigned char byte : texts_->bytes[token]) {
        run.state = nodes_[run.state].next[byte];
        run.met |= nodes_[run.state].met;
    }
    return run;
}

}  // namespace headway
