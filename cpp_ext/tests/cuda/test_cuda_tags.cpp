// Each token's best tag and its probability against argmax and softmax on the processor.
#include "cuda_check.hpp"
#include "headway/cuda/tags.hpp"
#include "headway/softmax.hpp"

namespace {

struct Found {
    std::vector<std::int32_t> tags;
    std::vector<float> chances;
};

Found found(Numbers& logits, std::int64_t rows, std::int64_t columns) {
    Device<std::int32_t> tags(rows);
    Device<float> chances(rows);
    headway::cuda::tags({logits.data(), logits.type(), rows, columns, tags.data(), chances.data()},
                        nullptr);
    return {tags.read(), chances.read()};
}

// A few values only, if there shall be ties.
void check_rows(std::int64_t rows, std::int64_t columns, Type type, bool ties) {
    std::vector<float> values = random_floats(rows * columns, 3.0f);
    for (std::int64_t i = 0; i < std::ssize(values); ++i) {
        if (ties) values[i] = std::round(values[i] / 4.0f);
        if (i % columns != 0 && random_int(0, 9) == 0) values[i] = -infinity;
    }
    Numbers logits(values, type);
    const Found got = found(logits, rows, columns);
    const headway::Matrix view{logits.values().data(), rows, columns};
    const auto best = headway::argmax(view);
    const auto chances = headway::softmax(view);
    for (std::int64_t w = 0; w < rows; ++w) {
        CHECK(got.tags[w] == best[w]);
        CHECK_CLOSE(got.chances[w], chances[w * columns + best[w]]);
    }
}

void check_refused(Type type, std::int64_t columns) {
    std::vector<float> values(4 * columns, 1.0f);
    values[columns - 1] = nan_value;
    values[columns] = infinity;
    for (std::int64_t c = 0; c < columns; ++c) values[2 * columns + c] = -infinity;
    Numbers logits(values, type);
    const Found got = found(logits, 4, columns);
    for (int w = 0; w < 3; ++w) CHECK(got.tags[w] == -1 && std::isnan(got.chances[w]));
    CHECK(got.tags[3] == 0);
    CHECK_CLOSE(got.chances[3], 1.0 / static_cast<double>(columns));
}

}  // namespace

int main() {
    return on_device([] {
        for (const Type type : every_type)
            for (const std::int64_t columns : {1, 2, 3, 9, 16, 31, 33, 200}) {
                for (const bool ties : {false, true}) check_rows(11, columns, type, ties);
                check_rows(0, columns, type, false);
                check_refused(type, columns);
            }
        check_rows(300, 5, Type::f32, true);
    });
}
