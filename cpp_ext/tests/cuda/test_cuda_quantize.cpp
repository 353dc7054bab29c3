// int8 per token against the formula of the exporter.
#include "cuda_check.hpp"
#include "headway/cuda/quantize.hpp"

namespace {

struct Quantized {
    std::vector<std::int8_t> values;
    std::vector<float> scales;
};

Quantized quantize(Numbers& x, std::int64_t rows, std::int64_t columns, std::size_t shift = 0) {
    Device<std::int8_t> out(rows * columns, shift);
    Device<float> scales(rows);
    headway::cuda::quantize({x.data(), x.type(), rows, columns, out.data(), scales.data()},
                            nullptr);
    return {out.read(), scales.read()};
}

void check_rows(std::int64_t rows, std::int64_t columns, Type type, std::size_t shift = 0) {
    std::vector<float> values = random_floats(rows * columns, 30.0f);
    if (rows > 1)  // a row of halves of its steps: 127 for the greatest, and ties
        for (std::int64_t j = 0; j < columns; ++j)
            values[j] = j == 0 ? 127.0f : static_cast<float>(random_int(-253, 253)) / 2.0f;
    Numbers x(values, type, shift);
    const Quantized got = quantize(x, rows, columns, shift);
    for (std::int64_t n = 0; n < rows; ++n) {
        const float* row = x.values().data() + n * columns;
        float most = 0.0f;
        for (std::int64_t j = 0; j < columns; ++j) most = std::max(most, std::abs(row[j]));
        const float scale = std::max(most * (1.0f / 127.0f), 1e-20f);
        CHECK(got.scales[n] == scale);
        for (std::int64_t j = 0; j < columns; ++j) {
            const float want = std::min(std::max(std::nearbyint(row[j] / scale), -127.0f), 127.0f);
            CHECK(float(got.values[n * columns + j]) == want);
        }
    }
}

void check_special_values() {
    std::vector<float> values(4 * 24, 1.0f);
    for (int j = 0; j < 24; ++j) values[j] = 0.0f;
    values[24 + 5] = nan_value;
    values[48 + 6] = infinity;
    Numbers x(values, Type::f32);
    const Quantized got = quantize(x, 4, 24);
    CHECK(got.scales[0] == 1e-20f && std::isnan(got.scales[1]) && got.scales[2] == infinity);
    CHECK(got.scales[3] == 1.0f / 127.0f);
    for (int j = 0; j < 24; ++j) CHECK(got.values[j] == 0 && got.values[72 + j] == 127);
}

}  // namespace

int main() {
    return on_device([] {
        for (const Type type : every_type) {
            for (const std::int64_t columns : {0, 1, 7, 8, 64, 384, 777})
                check_rows(3, columns, type);
            check_rows(0, 8, type);
            check_rows(2, 64, type, 1);  // no wide loads
            check_rows(2, 9000, type);   // longer than the registers hold
            check_rows(1, 9001, type, 1);
        }
        check_special_values();
    });
}
