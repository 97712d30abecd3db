#include "worker/trainer/data/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "common/files.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
static_assert(std::endian::native == std::endian::little, "token files are mapped as they lie on the disk");

constexpr size_t kFlushBytes = 1 << 20;

common::Error SystemError(const char* act, const fs::path& path) {
  common::ErrorCode code = common::ErrorCode::kDataLoss;
  if (errno == ENOENT) code = common::ErrorCode::kNotFound;
  if (errno == EACCES || errno == EPERM || errno == EROFS) code = common::ErrorCode::kPermissionDenied;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EMFILE)
    code = common::ErrorCode::kResourceExhausted;
  return {code, std::string("cannot ") + act + " '" + path.string() + "': " + common::ErrnoText()};
}

fs::path WithSuffix(const fs::path& stem, const char* suffix) { return stem.string() + suffix; }

// A file that grows at its end, in large writes.
class GrowingFile {
 public:
  GrowingFile() = default;
  GrowingFile(const GrowingFile&) = delete;
  ~GrowingFile() {
    if (fd_ >= 0) ::close(fd_);
  }

  common::Status Create(const fs::path& path) {
    path_ = path;
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd_ >= 0 ? common::Ok() : common::Status(SystemError("create", path_));
  }

  // Opens a file that is there, cut to its first `size` bytes.
  common::Status Reopen(const fs::path& path, int64_t size) {
    path_ = path;
    fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) return SystemError("open", path_);
    if (::lseek(fd_, 0, SEEK_END) < size)
      return common::DataLoss("'" + path_.string() + "' is shorter than it was: remove it and build again");
    const bool cut = ::ftruncate(fd_, size) == 0 && ::lseek(fd_, size, SEEK_SET) == size;
    return cut ? common::Ok() : common::Status(SystemError("cut", path_));
  }

  common::Status Append(const void* data, size_t size) {
    buffer_.append(static_cast<const char*>(data), size);
    return buffer_.size() < kFlushBytes ? common::Ok() : Flush();
  }

  common::Status Sync() {
    ALLO_RETURN_IF_ERROR(Flush());
    return ::fsync(fd_) == 0 ? common::Ok() : common::Status(SystemError("write", path_));
  }

 private:
  common::Status Flush() {
    std::string_view left = buffer_;
    while (!left.empty()) {
      const ssize_t n = ::write(fd_, left.data(), left.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return SystemError("write", path_);
      left.remove_prefix(static_cast<size_t>(n));
    }
    buffer_.clear();
    return common::Ok();
  }

  fs::path path_;
  int fd_ = -1;
  std::string buffer_;
};

}  // namespace

class TokenFile::Mapping {
 public:
  static common::Result<std::shared_ptr<const Mapping>> Open(const fs::path& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return SystemError("open", path);
    auto mapping = std::make_shared<Mapping>();
    struct stat info = {};
    const bool sized = ::fstat(fd, &info) == 0;
    mapping->size_ = static_cast<size_t>(info.st_size);
    if (sized && mapping->size_ > 0) mapping->data_ = ::mmap(nullptr, mapping->size_, PROT_READ, MAP_SHARED, fd, 0);
    const bool mapped = sized && mapping->data_ != MAP_FAILED;
    const common::Error error = SystemError("map", path);
    ::close(fd);
    if (mapped) return std::shared_ptr<const Mapping>(std::move(mapping));
    mapping->data_ = nullptr;
    return error;
  }
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  ~Mapping() {
    if (data_) ::munmap(data_, size_);
  }
  const void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

fs::path ShardStem(const fs::path& stem, int64_t shard) {
  std::string number = std::to_string(shard);
  number.insert(0, number.size() < 5 ? 5 - number.size() : 0, '0');
  return stem.string() + "-" + number;
}

common::Result<TokenFile> TokenFile::Open(const fs::path& stem, int token_bytes) {
  ALLO_ASSIGN_OR_RETURN(Shard shard, OpenShard(stem, token_bytes));
  return Join({std::move(shard)}, token_bytes);
}

common::Result<TokenFile> TokenFile::OpenShards(const fs::path& stem, int64_t shards, int token_bytes) {
  std::vector<Shard> all;
  for (int64_t i = 0; i < shards; ++i) {
    ALLO_ASSIGN_OR_RETURN(Shard shard, OpenShard(ShardStem(stem, i), token_bytes));
    all.push_back(std::move(shard));
  }
  return Join(std::move(all), token_bytes);
}

common::Result<TokenFile::Shard> TokenFile::OpenShard(const fs::path& stem, int token_bytes) {
  if (token_bytes != 2 && token_bytes != 4) throw std::invalid_argument("TokenFile: ids have 2 or 4 bytes");
  Shard shard;
  ALLO_ASSIGN_OR_RETURN(shard.token_map, Mapping::Open(WithSuffix(stem, ".tokens")));
  ALLO_ASSIGN_OR_RETURN(shard.index_map, Mapping::Open(WithSuffix(stem, ".index")));
  const size_t token_size = shard.token_map->size(), index_size = shard.index_map->size();
  shard.data = shard.token_map->data();
  shard.index = static_cast<const uint64_t*>(shard.index_map->data());
  shard.tokens = static_cast<int64_t>(token_size / static_cast<size_t>(token_bytes));
  shard.documents = static_cast<int64_t>(index_size / 8) - 1;
  bool fits = token_size % static_cast<size_t>(token_bytes) == 0 && index_size % 8 == 0 && shard.documents >= 0 &&
              shard.index[0] == 0 && shard.index[shard.documents] == static_cast<uint64_t>(shard.tokens);
  for (int64_t i = 0; fits && i < shard.documents; ++i) fits = shard.index[i] <= shard.index[i + 1];
  if (!fits)
    return common::DataLoss("'" + stem.string() +
                            ".tokens' and '.index' do not fit one another: prepare the data again");
  return shard;
}

common::Result<TokenFile> TokenFile::Join(std::vector<Shard> shards, int token_bytes) {
  TokenFile file;
  file.token_bytes_ = token_bytes;
  for (Shard& shard : shards) {
    shard.first_token = file.tokens_;
    shard.first_document = file.documents_;
    file.tokens_ += shard.tokens;
    file.documents_ += shard.documents;
  }
  file.shards_ = std::make_shared<const std::vector<Shard>>(std::move(shards));
  return file;
}

int64_t TokenFile::Offset(int64_t i) const {
  if (i >= documents_) return tokens_;
  const Shard& shard = *(std::ranges::upper_bound(*shards_, i, {}, &Shard::first_document) - 1);
  return shard.first_token + static_cast<int64_t>(shard.index[i - shard.first_document]);
}

void TokenFile::ReadShard(const Shard& shard, int64_t first, std::span<int32_t> out) const {
  if (token_bytes_ == 4) {
    std::memcpy(out.data(), static_cast<const int32_t*>(shard.data) + first, out.size() * 4);
    return;
  }
  const uint16_t* ids = static_cast<const uint16_t*>(shard.data) + first;
  for (size_t i = 0; i < out.size(); ++i) out[i] = ids[i];
}

void TokenFile::Read(int64_t first, std::span<int32_t> out) const {
  if (first < 0 || first + static_cast<int64_t>(out.size()) > tokens_)
    throw std::out_of_range("TokenFile::Read beyond the file");
  if (out.empty()) return;
  auto shard = std::ranges::upper_bound(*shards_, first, {}, &Shard::first_token) - 1;
  while (!out.empty()) {
    const int64_t begin = first - shard->first_token;
    const size_t here = std::min(out.size(), static_cast<size_t>(shard->tokens - begin));
    ReadShard(*shard, begin, out.first(here));
    out = out.subspan(here);
    first += static_cast<int64_t>(here);
    ++shard;
  }
}

std::vector<int32_t> TokenFile::Document(int64_t i) const {
  if (i < 0 || i >= documents_) throw std::out_of_range("TokenFile::Document beyond the file");
  std::vector<int32_t> ids(static_cast<size_t>(Offset(i + 1) - Offset(i)));
  Read(Offset(i), ids);
  return ids;
}

struct TokenFileWriter::Files {
  GrowingFile tokens, index;
  std::vector<uint16_t> narrow;
};

TokenFileWriter::TokenFileWriter() : files_(std::make_unique<Files>()) {}
TokenFileWriter::TokenFileWriter(TokenFileWriter&&) noexcept = default;
TokenFileWriter& TokenFileWriter::operator=(TokenFileWriter&&) noexcept = default;
TokenFileWriter::~TokenFileWriter() = default;

common::Result<TokenFileWriter> TokenFileWriter::Create(const fs::path& stem, int token_bytes) {
  TokenFileWriter writer;
  writer.token_bytes_ = token_bytes;
  ALLO_RETURN_IF_ERROR(writer.files_->tokens.Create(WithSuffix(stem, ".tokens")));
  ALLO_RETURN_IF_ERROR(writer.files_->index.Create(WithSuffix(stem, ".index")));
  return writer;
}

common::Result<TokenFileWriter> TokenFileWriter::Resume(const fs::path& stem, int token_bytes, int64_t documents,
                                                        int64_t tokens) {
  TokenFileWriter writer;
  writer.token_bytes_ = token_bytes;
  writer.documents_ = documents;
  writer.tokens_ = tokens;
  ALLO_RETURN_IF_ERROR(writer.files_->tokens.Reopen(WithSuffix(stem, ".tokens"), tokens * token_bytes));
  ALLO_RETURN_IF_ERROR(writer.files_->index.Reopen(WithSuffix(stem, ".index"), documents * 8));
  return writer;
}

common::Status TokenFileWriter::Append(std::span<const int32_t> document) {
  const auto offset = static_cast<uint64_t>(tokens_);
  ALLO_RETURN_IF_ERROR(files_->index.Append(&offset, sizeof offset));
  tokens_ += static_cast<int64_t>(document.size());
  ++documents_;
  if (token_bytes_ == 4) return files_->tokens.Append(document.data(), document.size() * 4);
  files_->narrow.assign(document.begin(), document.end());
  return files_->tokens.Append(files_->narrow.data(), files_->narrow.size() * 2);
}

common::Status TokenFileWriter::Sync() {
  ALLO_RETURN_IF_ERROR(files_->tokens.Sync());
  return files_->index.Sync();
}

common::Status TokenFileWriter::Finish() {
  const auto end = static_cast<uint64_t>(tokens_);
  ALLO_RETURN_IF_ERROR(files_->index.Append(&end, sizeof end));
  return Sync();
}

TokenShardWriter::TokenShardWriter(TokenFileWriter writer, fs::path stem, int token_bytes, int64_t shard_tokens,
                                   const Position& from)
    : writer_(std::move(writer)),
      stem_(std::move(stem)),
      token_bytes_(token_bytes),
      shard_tokens_(shard_tokens),
      shard_(from.shard),
      documents_before_(from.documents_before),
      tokens_before_(from.tokens_before) {}

common::Result<TokenShardWriter> TokenShardWriter::Open(const fs::path& stem, int token_bytes, int64_t shard_tokens,
                                                        const Position& from) {
  const fs::path shard = ShardStem(stem, from.shard);
  ALLO_ASSIGN_OR_RETURN(TokenFileWriter writer,
                        from.documents == 0 ? TokenFileWriter::Create(shard, token_bytes)
                                            : TokenFileWriter::Resume(shard, token_bytes, from.documents, from.tokens));
  return TokenShardWriter(std::move(writer), stem, token_bytes, shard_tokens, from);
}

common::Status TokenShardWriter::Append(std::span<const int32_t> document) {
  const int64_t size = static_cast<int64_t>(document.size());
  if (writer_.documents() > 0 && writer_.tokens() + size > shard_tokens_) {
    ALLO_RETURN_IF_ERROR(writer_.Finish());
    documents_before_ += writer_.documents();
    tokens_before_ += writer_.tokens();
    ALLO_ASSIGN_OR_RETURN(writer_, TokenFileWriter::Create(ShardStem(stem_, ++shard_), token_bytes_));
  }
  return writer_.Append(document);
}

TokenShardWriter::Position TokenShardWriter::position() const {
  return {shard_, writer_.documents(), writer_.tokens(), documents_before_, tokens_before_};
}

}  // namespace allometry::trainer
