#include "worker/trainer/data/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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
  if (errno == ENOSPC || errno == EDQUOT || errno == EMFILE) code = common::ErrorCode::kResourceExhausted;
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

  common::Status Append(const void* data, size_t size) {
    buffer_.append(static_cast<const char*>(data), size);
    return buffer_.size() < kFlushBytes ? common::Ok() : Flush();
  }

  common::Status Finish() {
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

common::Result<TokenFile> TokenFile::Open(const fs::path& stem, int token_bytes) {
  if (token_bytes != 2 && token_bytes != 4) throw std::invalid_argument("TokenFile: ids have 2 or 4 bytes");
  TokenFile file;
  ALLO_ASSIGN_OR_RETURN(file.token_map_, Mapping::Open(WithSuffix(stem, ".tokens")));
  ALLO_ASSIGN_OR_RETURN(file.index_map_, Mapping::Open(WithSuffix(stem, ".index")));
  const size_t token_size = file.token_map_->size(), index_size = file.index_map_->size();
  file.token_bytes_ = token_bytes;
  file.data_ = file.token_map_->data();
  file.index_ = static_cast<const uint64_t*>(file.index_map_->data());
  file.tokens_ = static_cast<int64_t>(token_size / static_cast<size_t>(token_bytes));
  file.documents_ = static_cast<int64_t>(index_size / 8) - 1;
  bool fits = token_size % static_cast<size_t>(token_bytes) == 0 && index_size % 8 == 0 && file.documents_ >= 0 &&
              file.index_[0] == 0 && file.index_[file.documents_] == static_cast<uint64_t>(file.tokens_);
  for (int64_t i = 0; fits && i < file.documents_; ++i) fits = file.index_[i] <= file.index_[i + 1];
  if (!fits)
    return common::DataLoss("'" + stem.string() +
                            ".tokens' and '.index' do not fit one another: prepare the data again");
  return file;
}

void TokenFile::Read(int64_t first, std::span<int32_t> out) const {
  if (first < 0 || first + static_cast<int64_t>(out.size()) > tokens_)
    throw std::out_of_range("TokenFile::Read beyond the file");
  if (token_bytes_ == 4) {
    std::memcpy(out.data(), static_cast<const int32_t*>(data_) + first, out.size() * 4);
    return;
  }
  const uint16_t* ids = static_cast<const uint16_t*>(data_) + first;
  for (size_t i = 0; i < out.size(); ++i) out[i] = ids[i];
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
TokenFileWriter::~TokenFileWriter() = default;

common::Result<TokenFileWriter> TokenFileWriter::Create(const fs::path& stem, int token_bytes) {
  TokenFileWriter writer;
  writer.token_bytes_ = token_bytes;
  ALLO_RETURN_IF_ERROR(writer.files_->tokens.Create(WithSuffix(stem, ".tokens")));
  ALLO_RETURN_IF_ERROR(writer.files_->index.Create(WithSuffix(stem, ".index")));
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

common::Status TokenFileWriter::Finish() {
  const auto end = static_cast<uint64_t>(tokens_);
  ALLO_RETURN_IF_ERROR(files_->index.Append(&end, sizeof end));
  ALLO_RETURN_IF_ERROR(files_->tokens.Finish());
  return files_->index.Finish();
}

}  // namespace allometry::trainer
