#include "worker/trainer/data/build_duplicates.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string>

#include "common/files.h"
#include "common/sha256.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBuckets = 256;
constexpr int kLevels = 8;             // bytes of Fingerprint::low
constexpr int64_t kBytesOfKnown = 64;  // of one fingerprint in the table

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

common::Error FileError(const char* act, const fs::path& path) {
  const bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
  return {full ? common::ErrorCode::kResourceExhausted : common::ErrorCode::kFailedPrecondition,
          std::string("cannot ") + act + " '" + path.string() + "': " + common::ErrnoText()};
}

}  // namespace

Fingerprint FingerprintOf(std::string_view document) {
  const std::string hex = common::Sha256Hex(document);
  Fingerprint f;
  std::from_chars(hex.data(), hex.data() + 16, f.high, 16);
  std::from_chars(hex.data() + 16, hex.data() + 32, f.low, 16);
  return f;
}

DuplicateFinder::DuplicateFinder(fs::path folder, int64_t memory_bytes)
    : DuplicateFinder(std::move(folder), memory_bytes, "fingerprints", 0) {}

DuplicateFinder::DuplicateFinder(fs::path folder, int64_t memory_bytes, std::string name, int level)
    : folder_(std::move(folder)),
      name_(std::move(name)),
      memory_bytes_(memory_bytes),
      level_(level),
      buckets_(kBuckets) {}

fs::path DuplicateFinder::FileOf(size_t bucket) const { return folder_ / (name_ + "-" + std::to_string(bucket)); }

common::Status DuplicateFinder::Put(const Record& record) {
  const size_t bucket = (record.print.low >> (8 * level_)) % kBuckets;
  std::vector<Record>& buffer = buckets_[bucket].buffer;
  buffer.push_back(record);
  const size_t most = std::max<size_t>(1, static_cast<size_t>(memory_bytes_) / (kBuckets * sizeof(Record)));
  return buffer.size() < most ? common::Ok() : Spill(bucket);
}

common::Status DuplicateFinder::Spill(size_t bucket) {
  const fs::path path = FileOf(bucket);
  const File file(std::fopen(path.c_str(), buckets_[bucket].spilled ? "ab" : "wb"), std::fclose);
  if (!file) return FileError("create", path);
  std::vector<Record>& buffer = buckets_[bucket].buffer;
  if (std::fwrite(buffer.data(), sizeof(Record), buffer.size(), file.get()) != buffer.size() ||
      std::fflush(file.get()) != 0)
    return FileError("write", path);
  buckets_[bucket].spilled = true;
  buffer.clear();
  return common::Ok();
}

common::Status DuplicateFinder::Visit(size_t bucket, const std::function<common::Status(const Record&)>& visit) const {
  if (buckets_[bucket].spilled) {
    const fs::path path = FileOf(bucket);
    const File file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) return FileError("open", path);
    std::vector<Record> some(4096);
    while (const size_t n = std::fread(some.data(), sizeof(Record), some.size(), file.get()))
      for (size_t i = 0; i < n; ++i) ALLO_RETURN_IF_ERROR(visit(some[i]));
    if (std::ferror(file.get())) return FileError("read", path);
  }
  for (const Record& record : buckets_[bucket].buffer) ALLO_RETURN_IF_ERROR(visit(record));
  return common::Ok();
}

common::Status DuplicateFinder::Finish(const Found& found) {
  const bool spilled = std::ranges::any_of(buckets_, &Bucket::spilled);
  for (size_t b = 0; spilled && b < kBuckets; ++b) {
    if (buckets_[b].buffer.empty()) continue;
    ALLO_RETURN_IF_ERROR(Spill(b));
    buckets_[b].buffer.shrink_to_fit();  // the table of known fingerprints takes the place of the buffers
  }
  for (size_t b = 0; b < kBuckets; ++b) ALLO_RETURN_IF_ERROR(Search(b, found));
  return common::Ok();
}

common::Status DuplicateFinder::Search(size_t bucket, const Found& found) {
  const size_t most = level_ + 1 < kLevels ? static_cast<size_t>(memory_bytes_ / kBytesOfKnown) : SIZE_MAX;
  Firsts firsts;
  ALLO_RETURN_IF_ERROR(Visit(bucket, [&](const Record& record) {
    if (firsts.size() > most) return common::Ok();
    const auto [first, is_new] = firsts.try_emplace(record.print, record.document);
    if (!is_new) found(record.document, first->second);
    return common::Ok();
  }));
  const bool too_many = firsts.size() > most;
  firsts = Firsts();  // before other tables need the memory
  if (too_many) ALLO_RETURN_IF_ERROR(SearchInParts(bucket, found));
  std::error_code ignored;
  if (buckets_[bucket].spilled) fs::remove(FileOf(bucket), ignored);
  buckets_[bucket] = {};
  return common::Ok();
}

common::Status DuplicateFinder::SearchInParts(size_t bucket, const Found& found) {
  DuplicateFinder parts(folder_, memory_bytes_, FileOf(bucket).filename().string(), level_ + 1);
  ALLO_RETURN_IF_ERROR(Visit(bucket, [&](const Record& record) { return parts.Put(record); }));
  return parts.Finish(found);
}

}  // namespace allometry::trainer
