#include "records/metric_chunk.h"

#include <zlib.h>

#include <bit>
#include <cstring>
#include <stdexcept>

namespace allometry::records {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int64_t kMaxBytesPerPoint = 10 + sizeof(double);

uint64_t Difference(int64_t a, int64_t b) { return static_cast<uint64_t>(a) - static_cast<uint64_t>(b); }

void AppendSigned(int64_t value, std::string* out) {
  for (;;) {
    const uint8_t low = value & 0x7f;
    value >>= 7;
    const bool last = (value == 0 && !(low & 0x40)) || (value == -1 && (low & 0x40));
    out->push_back(static_cast<char>(last ? low : low | 0x80));
    if (last) return;
  }
}

bool TakeSigned(std::string_view* in, int64_t* value) {
  uint64_t bits = 0;
  for (int shift = 0; shift < 64 && !in->empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    bits |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte & 0x80) continue;
    if (shift + 7 < 64 && (byte & 0x40)) bits |= ~uint64_t{0} << (shift + 7);
    *value = static_cast<int64_t>(bits);
    return true;
  }
  return false;
}

}  // namespace

std::string PackPoints(const std::vector<int64_t>& steps, const std::vector<double>& values) {
  if (steps.size() != values.size()) throw std::invalid_argument("as many steps as values");
  std::string raw;
  int64_t previous = 0;
  for (int64_t step : steps) {
    AppendSigned(static_cast<int64_t>(Difference(step, previous)), &raw);
    previous = step;
  }
  raw.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
  uLongf size = compressBound(raw.size());
  std::string packed(size, '\0');
  if (compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(raw.data()),
               raw.size()) != Z_OK)
    throw std::bad_alloc();
  packed.resize(size);
  return packed;
}

common::Result<Points> UnpackPoints(std::string_view data, int64_t points) {
  const common::Error damaged = common::DataLoss("a metric chunk of the database is damaged");
  if (points < 0 || points > 100'000'000) return damaged;
  std::string raw(points * kMaxBytesPerPoint + 1, '\0');
  uLongf size = raw.size();
  if (uncompress(reinterpret_cast<Bytef*>(raw.data()), &size, reinterpret_cast<const Bytef*>(data.data()),
                 data.size()) != Z_OK)
    return damaged;
  std::string_view rest(raw.data(), size);
  Points result;
  int64_t step = 0;
  for (int64_t i = 0; i < points; ++i) {
    int64_t difference = 0;
    if (!TakeSigned(&rest, &difference)) return damaged;
    step = static_cast<int64_t>(static_cast<uint64_t>(step) + static_cast<uint64_t>(difference));
    result.steps.push_back(step);
  }
  if (rest.size() != points * sizeof(double)) return damaged;
  result.values.resize(points);
  if (points > 0) std::memcpy(result.values.data(), rest.data(), rest.size());
  return result;
}

}  // namespace allometry::records
