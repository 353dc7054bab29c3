// Rows of key/value caches that go on as other rows were, in place.
#include "headway/caches.hpp"

#include <algorithm>

#include "refuse.hpp"

namespace headway {
namespace {

void check(std::span<const Cache> caches, const Origin& origin,
           std::span<const std::int64_t> parents, std::int64_t written) {
    const std::int64_t rows = origin.rows;
    if (std::ssize(parents) != rows) refuse(parents.size(), " parents for ", rows, " rows");
    if (written < 0 || written > origin.columns)
        refuse(written, " columns are written, of ", origin.columns);
    for (const Cache& cache : caches)
        if (cache.rows != rows || cache.columns != origin.columns)
            refuse("a cache has ", cache.rows, " rows of ", cache.columns, " columns, not ", rows,
                   " of ", origin.columns);
    for (const std::int64_t parent : parents) {
        if (parent < 0 || parent >= rows) refuse("there is no row ", parent, " among ", rows);
        if (parents[parent] != parent)
            refuse("row ", parent, " is followed, but follows row ", parents[parent]);
    }
}

void copy(const Cache& cache, std::int64_t from, std::int64_t to, std::int64_t begin,
          std::int64_t end) {
    const std::int64_t head = cache.columns * cache.width, row = cache.heads * head;
    const float* source = cache.data + from * row + begin * cache.width;
    float* target = cache.data + to * row + begin * cache.width;
    for (std::int64_t h = 0; h < cache.heads; ++h)
        std::copy_n(source + h * head, (end - begin) * cache.width, target + h * head);
}

}  // namespace

void follow(std::span<const Cache> caches, const Origin& origin,
            std::span<const std::int64_t> parents, std::int64_t written) {
    check(caches, origin, parents, written);
    for (std::int64_t row = 0; row < origin.rows; ++row) {
        const std::int64_t parent = parents[row];
        const std::int64_t* wanted = origin.row(parent);
        std::int64_t* own = origin.row(row);
        const std::int64_t begin = std::mismatch(wanted, wanted + written, own).first - wanted;
        if (begin == written) continue;
        for (const Cache& cache : caches) copy(cache, parent, row, begin, written);
        std::copy(wanted + begin, wanted + written, own + begin);
    }
}

}  // namespace headway
