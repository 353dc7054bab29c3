// Spans on the GPU against spans on the processor.
#include "cuda_check.hpp"
#include "headway/cuda/spans.hpp"
#include "headway/spans.hpp"

namespace {

using Places = std::vector<std::int64_t>;

struct Case {
    std::vector<float> start, end;
    Places first, after, windows, questions;
};

// Windows of tokens of 0 to 2 characters; scores with many ties, or none.
Case random_case(std::int64_t questions, std::int64_t longest, bool ties) {
    Case made;
    made.questions = random_offsets(questions, 0, 3);
    made.windows = random_offsets(made.questions.back(), 0, longest);
    made.start = random_floats(made.windows.back(), 2.0f);
    made.end = random_floats(made.windows.back(), 2.0f);
    for (std::int64_t r = 0; r < made.questions.back(); ++r) {
        std::int64_t place = random_int(0, 3);
        for (std::int64_t t = made.windows[r]; t < made.windows[r + 1]; ++t) {
            if (ties) made.start[t] = std::round(made.start[t]);
            if (ties) made.end[t] = std::round(made.end[t]);
            made.first.push_back(random_int(0, 4) == 0 ? -1 : place);
            made.after.push_back(place += random_int(0, 2));
        }
    }
    return made;
}

struct Found {
    std::vector<double> scores;
    Places places;
};

Found found(const Case& given, Numbers& start, Numbers& end, std::int64_t k, std::int64_t longest,
            bool overlap) {
    const auto count = std::ssize(given.questions) - 1;
    Device<std::int64_t> first(given.first), after(given.after), windows(given.windows);
    Device<std::int64_t> questions(given.questions), places(2 * count * k);
    Device<double> scores(count * k);
    headway::cuda::spans(
        {start.data(), end.data(), start.type(), first.data(), after.data(), windows.data(),
         questions.data(), count, k, longest, overlap, scores.data(), places.data()},
        nullptr);
    return {scores.read(), places.read()};
}

void check_case(const Case& given, std::int64_t k, std::int64_t longest, bool overlap, Type type) {
    Numbers start(given.start, type), end(given.end, type);
    const Found got = found(given, start, end, k, longest, overlap);
    const headway::Spans want = headway::spans(
        {start.values(), end.values(), given.first, given.after, given.windows, given.questions}, k,
        longest, overlap);
    for (std::int64_t i = 0; i < std::ssize(got.scores); ++i) {
        CHECK(got.scores[i] == want.scores[i]);
        CHECK(got.places[2 * i] == want.places[2 * i]);
        CHECK(got.places[2 * i + 1] == want.places[2 * i + 1]);
    }
}

void check_not_finite() {
    const Case given{
        {nan_value, 1.0f, infinity}, {5.0f, -infinity, 2.0f}, {0, 2, 4}, {1, 3, 5}, {0, 3}, {0, 1}};
    Numbers start(given.start, Type::f32), end(given.end, Type::f32);
    const Found got = found(given, start, end, 2, 3, true);
    CHECK(got.scores[0] == 3.0 && got.scores[1] == -double(infinity));
    CHECK((got.places == Places{2, 5, 0, 0}));
}

}  // namespace

int main() {
    return on_device([] {
        for (int i = 0; i < 30; ++i)
            check_case(random_case(random_int(0, 3), 12, i % 4 < 2), random_int(1, 6),
                       random_int(1, 14), i % 2 == 0, every_type[i % 3]);
        for (const bool overlap : {false, true})
            check_case(random_case(2, 300, true), 3, 30, overlap, Type::f32);
        check_not_finite();
    });
}
