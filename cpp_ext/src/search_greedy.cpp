// Search without beams: always the most probable token.
#include "search_greedy.hpp"

namespace headway {

void Greedy::advance(Step& step) {
    step.scores.begin(row(step, 0), false);
    rules_.apply(step.scores, lines_[0].tokens);
    step.best.begin(1);
    step.scores.offer(0.0f, 0, step.best);
    const auto best = step.best.sorted();
    if (best.empty() && row(step, 0).allowed != nullptr) {  // the text is as long as it can be
        done_ = true;
        return;
    }
    const Token token = best.empty() ? 0 : best[0].token;  // as generate() does where none may come
    const Mass mass = step.scores.mass();
    const float log = best.empty() ? never : (best[0].score - mass.max) - mass.log();
    const Next next{token, log, 0};
    const bool end = ends(0, token);
    lines_.go_on({&next, 1}, rows_);
    done_ = end || std::ssize(lines_[0].tokens) >= request_.longest;
}

std::vector<Hypothesis> Greedy::found() const {
    if (!done_) return {};
    return {so_far(0)};
}

}  // namespace headway
