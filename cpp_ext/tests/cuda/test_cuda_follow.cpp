// Caches that follow others on the GPU, against those of the processor.
#include <algorithm>

#include "cuda_check.hpp"
#include "headway/caches.hpp"
#include "headway/cuda/follow.hpp"

namespace {

namespace cuda = headway::cuda;

// As Beams gives them: whoever is followed follows itself.
std::vector<std::int64_t> random_parents(std::int64_t rows) {
    std::vector<std::int64_t> stay, parents(rows);
    for (std::int64_t r = 0; r < rows; ++r)
        if (r == 0 || random_int(0, 1) == 0) stay.push_back(r);
    for (std::int64_t r = 0; r < rows; ++r) parents[r] = stay[random_int(0, std::ssize(stay) - 1)];
    for (const std::int64_t r : stay) parents[r] = r;
    return parents;
}

struct Shape {
    std::int64_t rows, heads, columns, width;

    std::int64_t size() const { return rows * heads * columns * width; }
};

// In place: what the processor's follow leaves, to the last bit, and nothing behind the columns
// that are written.
void check_in_place(const Shape& shape, std::int64_t written) {
    const auto parents = random_parents(shape.rows);
    std::vector<std::vector<float>> wanted{random_floats(shape.size()),
                                           random_floats(shape.size())};
    Device<float> one(wanted[0]), other(wanted[1]);
    const auto given = wanted;
    std::vector<std::int64_t> origin(shape.rows * shape.columns);
    for (std::int64_t i = 0; i < std::ssize(origin); ++i) origin[i] = i / shape.columns;
    std::vector<headway::Cache> views;
    for (auto& values : wanted)
        views.push_back({values.data(), shape.rows, shape.heads, shape.columns, shape.width});
    headway::follow(views, {origin.data(), shape.rows, shape.columns}, parents, written);
    Device<void*> caches({one.data(), other.data()});
    Device<std::int64_t> sources(parents), columns(std::vector<std::int64_t>{written});
    const auto bytes = static_cast<std::int64_t>(shape.width * sizeof(float));
    cuda::follow({caches.data(), caches.data(), sources.data(), columns.data(), nullptr, 2,
                  shape.rows, shape.heads, shape.columns, shape.columns, bytes},
                 nullptr);
    CHECK(one.read() == wanted[0]);
    CHECK(other.read() == wanted[1]);
    if (written == 0) CHECK(given == wanted);
}

// To other caches, of other sizes, of numbers of two bytes: any row may follow any.
void check_moved(const Shape& from, std::int64_t rows, std::int64_t columns, std::int64_t written,
                 std::int64_t at) {
    std::vector<std::uint16_t> values(from.size());
    for (auto& x : values) x = static_cast<std::uint16_t>(random_int(1, 60000));
    const Shape to{rows, from.heads, columns, from.width};
    std::vector<std::uint16_t> wanted(to.size(), 7);
    std::vector<std::int64_t> parents(rows);
    for (auto& parent : parents) parent = random_int(0, from.rows - 1);
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t h = 0; h < to.heads; ++h)
            std::copy_n(values.begin() + (parents[r] * from.heads + h) * from.columns * from.width,
                        written * from.width,
                        wanted.begin() + ((r * to.heads + h) * columns + at) * to.width);
    Device<std::uint16_t> before(values), after(std::vector<std::uint16_t>(to.size(), 7));
    Device<void*> sources({before.data()}), targets({after.data()});
    Device<std::int64_t> rows_of(parents), count(std::vector<std::int64_t>{written});
    Device<std::int64_t> first(std::vector<std::int64_t>{at});
    const auto bytes = static_cast<std::int64_t>(from.width * sizeof(std::uint16_t));
    cuda::follow({sources.data(), targets.data(), rows_of.data(), count.data(),
                  at ? first.data() : nullptr, 1, rows, from.heads, from.columns, columns, bytes},
                 nullptr);
    CHECK(after.read() == wanted);
    CHECK(before.read() == values);
}

void check_advance(std::int64_t count, std::int64_t by) {
    std::vector<std::int64_t> numbers(count);
    for (auto& n : numbers) n = random_int(-9, 9);
    Device<std::int64_t> held(numbers);
    cuda::advance(held.data(), count, by, nullptr);
    for (auto& n : numbers) n += by;
    CHECK(held.read() == numbers);
}

}  // namespace

int main() {
    return on_device([] {
        for (const std::int64_t width : {1, 3, 4, 16})
            for (const std::int64_t written : {0, 1, 5, 40})
                check_in_place({random_int(1, 9), random_int(1, 3), 40, width}, written);
        for (const std::int64_t width : {1, 2, 8, 24})
            for (const std::int64_t written : {0, 3, 7})
                for (const std::int64_t at : {0, 9})
                    check_moved({random_int(1, 4), 2, 7, width}, random_int(1, 9), 16, written, at);
        for (const std::int64_t count : {0, 1, 300}) check_advance(count, count == 1 ? -2 : 1);
    });
}
