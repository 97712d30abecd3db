#include "common/ids.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

namespace allometry::common {

std::string RandomUuid() {
  std::random_device entropy;
  std::array<unsigned, 4> w{entropy(), entropy(), entropy(), entropy()};
  w[1] = (w[1] & 0xffff0fffu) | 0x4000u;        // version 4
  w[2] = (w[2] & 0x3fffffffu) | 0x80000000u;    // RFC 4122 variant
  char text[37];
  std::snprintf(text, sizeof text, "%08x-%04x-%04x-%04x-%04x%08x", w[0], w[1] >> 16, w[1] & 0xffff, w[2] >> 16,
                w[2] & 0xffff, w[3]);
  return text;
}

int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    int diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      int substituted = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace allometry::common
