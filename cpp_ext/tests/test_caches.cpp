// Rows that follow others, against copies of all that is written.
#include "headway/caches.hpp"

#include "check.hpp"

namespace {

struct Held {
    std::int64_t rows, heads, columns, width;
    std::vector<float> values = random_floats(rows * heads * columns * width);

    float& at(std::int64_t r, std::int64_t h, std::int64_t c, std::int64_t d) {
        return values[((r * heads + h) * columns + c) * width + d];
    }
    headway::Cache view() { return {values.data(), rows, heads, columns, width}; }
};

// Writes a column of every row, lets rows follow others, and so on; each must hold what it would
// hold if everything had been copied.
void check_follow(std::int64_t rows, std::int64_t columns) {
    Held one{rows, 2, columns, 3}, other{rows, 1, columns, 5};
    Held wanted = one, same = other;
    std::vector<std::int64_t> origin(rows * columns, 0), parents(rows);
    for (std::int64_t written = 0; written < columns; ++written) {
        for (std::int64_t r = 0; r < rows; ++r) {
            for (Held* held : {&one, &wanted})
                for (std::int64_t i = 0; i < 6; ++i)
                    held->at(r, i / 3, written, i % 3) = float(100 * written + 10 * r + i);
            for (Held* held : {&other, &same})
                for (std::int64_t d = 0; d < 5; ++d)
                    held->at(r, 0, written, d) = float(-100 * written - 10 * r - d);
            origin[r * columns + written] = r;
        }
        for (std::int64_t r = 0; r < rows; ++r) parents[r] = r;
        for (std::int64_t r = 0; r < rows; ++r) {
            const std::int64_t parent = random_int(0, rows - 1);
            bool followed = false;
            for (std::int64_t i = 0; i < rows; ++i) followed |= i != r && parents[i] == r;
            if (!followed && parents[parent] == parent) parents[r] = parent;
        }
        for (std::int64_t r = 0; r < rows; ++r)
            for (std::int64_t c = 0; c <= written; ++c) {
                for (std::int64_t i = 0; i < 6; ++i)
                    wanted.at(r, i / 3, c, i % 3) = wanted.at(parents[r], i / 3, c, i % 3);
                for (std::int64_t d = 0; d < 5; ++d)
                    same.at(r, 0, c, d) = same.at(parents[r], 0, c, d);
            }
        const std::vector<headway::Cache> caches{one.view(), other.view()};
        headway::follow(caches, {origin.data(), rows, columns}, parents, written + 1);
        CHECK(one.values == wanted.values);
        CHECK(other.values == same.values);
    }
}

void check_errors() {
    Held held{3, 1, 2, 1};
    std::vector<std::int64_t> origin(6, 0);
    const headway::Origin wrote{origin.data(), 3, 2}, fewer{origin.data(), 2, 2};
    const std::vector<headway::Cache> caches{held.view()};
    const auto before = held.values;
    using Parents = std::vector<std::int64_t>;
    CHECK_REFUSES(headway::follow(caches, wrote, Parents{0, 1}, 1), "2 parents for 3 rows");
    CHECK_REFUSES(headway::follow(caches, wrote, Parents{0, 1, 3}, 1), "no row 3 among 3");
    CHECK_REFUSES(headway::follow(caches, wrote, Parents{-1, 1, 2}, 1), "no row -1");
    CHECK_REFUSES(headway::follow(caches, wrote, Parents{0, 0, 1}, 1), "row 1 is followed");
    CHECK_REFUSES(headway::follow(caches, wrote, Parents{0, 1, 2}, 3), "3 columns are written");
    CHECK_REFUSES(headway::follow(caches, fewer, Parents{0, 1}, 1), "a cache has 3 rows");
    CHECK(held.values == before);
}

}  // namespace

int main() {
    for (int i = 0; i < 50; ++i) check_follow(random_int(1, 9), random_int(1, 20));
    check_errors();
    return failures != 0;
}
