#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/result.h"

namespace allometry::trainer {

// The first 128 bits of a document's SHA-256, which stand for its text.
struct Fingerprint {
  uint64_t high = 0, low = 0;
  bool operator==(const Fingerprint&) const = default;
};
Fingerprint FingerprintOf(std::string_view document);

// A number that is uniform in [0, 1) over texts: the fingerprint's first 53 bits.
inline double PlaceOf(const Fingerprint& f) { return static_cast<double>(f.high >> 11) * 0x1p-53; }

// Finds equal documents among any number of them: fingerprints are sorted into buckets, which spill to files, and each
// bucket is searched on its own. A bucket that is too large for the memory is sorted into smaller ones. Not
// thread-safe.
class DuplicateFinder {
 public:
  static constexpr int64_t kDefaultMemoryBytes = 128 << 20;

  // Bucket files go into `folder`, which must exist; they are removed by Finish, and overwritten if they are there.
  explicit DuplicateFinder(std::filesystem::path folder, int64_t memory_bytes = kDefaultMemoryBytes);

  // Documents are numbered from 0 in the order of the calls. kResourceExhausted: the disk is full.
  common::Status Add(const Fingerprint& print) { return Put({print, next_++}); }

  // Hands over every document that equals an earlier one, with the first that it equals; in any order, and possibly
  // more than once.
  using Found = std::function<void(int64_t document, int64_t first)>;
  common::Status Finish(const Found& found);

 private:
  struct Record {
    Fingerprint print;
    int64_t document = 0;
  };
  struct Bucket {
    std::vector<Record> buffer;
    bool spilled = false;
  };
  struct PrintHash {
    size_t operator()(const Fingerprint& f) const { return f.high; }
  };
  using Firsts = std::unordered_map<Fingerprint, int64_t, PrintHash>;

  DuplicateFinder(std::filesystem::path folder, int64_t memory_bytes, std::string name, int level);
  std::filesystem::path FileOf(size_t bucket) const;
  common::Status Put(const Record& record);
  common::Status Spill(size_t bucket);
  // Hands over the records of a bucket in the order in which they came.
  common::Status Visit(size_t bucket, const std::function<common::Status(const Record&)>& visit) const;
  common::Status Search(size_t bucket, const Found& found);
  common::Status SearchInParts(size_t bucket, const Found& found);

  const std::filesystem::path folder_;
  const std::string name_;  // of the files, by the way to this finder
  const int64_t memory_bytes_;
  const int level_;  // which byte of the fingerprint tells the bucket
  std::vector<Bucket> buckets_;
  int64_t next_ = 0;
};

}  // namespace allometry::trainer
