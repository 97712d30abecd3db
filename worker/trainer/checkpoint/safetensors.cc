#include "worker/trainer/checkpoint/safetensors.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "common/files.h"
#include "common/json.h"
#include "common/sha256.h"

namespace allometry::trainer {
namespace {

using common::DataLoss;
using common::Json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's reference reader

struct TypeName {
  const char* name;
  at::ScalarType type;
};
constexpr std::array<TypeName, 9> kTypes = {{{"F64", at::kDouble},
                                             {"F32", at::kFloat},
                                             {"F16", at::kHalf},
                                             {"BF16", at::kBFloat16},
                                             {"I64", at::kLong},
                                             {"I32", at::kInt},
                                             {"I16", at::kShort},
                                             {"U8", at::kByte},
                                             {"BOOL", at::kBool}}};

std::optional<at::ScalarType> TypeOfName(std::string_view name) {
  for (const TypeName& entry : kTypes)
    if (name == entry.name) return entry.type;
  return std::nullopt;
}

const char* NameOfType(at::ScalarType type) {
  for (const TypeName& entry : kTypes)
    if (type == entry.type) return entry.name;
  return nullptr;
}

struct Entry {
  std::string name;
  at::ScalarType type;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes behind the header
};

common::Error Corrupt(const std::filesystem::path& path, const std::string& what) {
  return DataLoss("'" + path.string() + "' is not a whole safetensors file: " + what);
}

// Bytes of a tensor, or nullopt on overflow or a negative side.
std::optional<uint64_t> BytesOf(at::ScalarType type, const std::vector<int64_t>& shape) {
  uint64_t bytes = c10::elementSize(type);
  for (int64_t side : shape)
    if (side < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(side), &bytes)) return std::nullopt;
  return bytes;
}

common::Result<Entry> ParseEntry(const std::string& name, const Json& value) {
  try {
    Entry entry{name, at::kFloat, value.at("shape").get<std::vector<int64_t>>()};
    auto type = TypeOfName(value.at("dtype").get<std::string>());
    if (!type) return DataLoss("tensor '" + name + "' has the unknown dtype " + value.at("dtype").dump());
    entry.type = *type;
    const Json& offsets = value.at("data_offsets");
    if (offsets.size() != 2) return DataLoss("tensor '" + name + "' has no byte range");
    entry.begin = offsets[0].get<uint64_t>();
    entry.end = offsets[1].get<uint64_t>();
    auto bytes = BytesOf(entry.type, entry.shape);
    if (entry.end < entry.begin || !bytes || *bytes != entry.end - entry.begin)
      return DataLoss("the byte range of tensor '" + name + "' does not fit its shape");
    return entry;
  } catch (const Json::exception& e) {
    return DataLoss("tensor '" + name + "' has a malformed description: " + e.what());
  }
}

// The entries in the order of their bytes, checked to cover `data_bytes` exactly.
common::Result<std::vector<Entry>> ParseEntries(const Json& header, uint64_t data_bytes) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    ALLO_ASSIGN_OR_RETURN(Entry entry, ParseEntry(name, value));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  uint64_t position = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != position) return DataLoss("gap or overlap before tensor '" + entry.name + "'");
    position = entry.end;
  }
  if (position != data_bytes)
    return DataLoss(std::to_string(data_bytes) + " bytes of data where the header names " + std::to_string(position));
  return entries;
}

at::Tensor TensorOf(const Entry& entry, const char* data) {
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(entry.type));
  if (entry.end > entry.begin) std::memcpy(tensor.mutable_data_ptr(), data + entry.begin, entry.end - entry.begin);
  return tensor;
}

// A tensor ready to be written: contiguous, on the CPU.
struct Piece {
  std::string name;
  at::Tensor tensor;
};

std::vector<Piece> PiecesOf(std::map<std::string, at::Tensor> tensors) {
  std::vector<Piece> pieces;
  for (auto& [name, tensor] : tensors)
    pieces.push_back({name, std::exchange(tensor, at::Tensor()).detach().cpu().contiguous()});
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.tensor.element_size() > b.tensor.element_size(); });
  return pieces;
}

std::string HeaderOf(const std::vector<Piece>& pieces, const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t position = 0;
  for (const Piece& piece : pieces) {
    const uint64_t end = position + piece.tensor.nbytes();
    header[piece.name] = {{"dtype", NameOfType(piece.tensor.scalar_type())},
                          {"shape", piece.tensor.sizes().vec()},
                          {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data starts on a multiple of 8
  return text;
}

// A file being written under a temporary name, hashed as it grows; unlinked unless committed.
class HashedFile {
 public:
  explicit HashedFile(std::filesystem::path path)
      : path_(std::move(path)), temporary_(path_.string() + ".tmp" + std::to_string(::getpid())) {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    Note(fd_ >= 0);
  }
  HashedFile(const HashedFile&) = delete;
  ~HashedFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!committed_) ::unlink(temporary_.c_str());
  }

  void Write(std::string_view bytes) {
    hash_.Update(bytes);
    while (ok_ && !bytes.empty()) {
      ssize_t n = ::write(fd_, bytes.data(), std::min<size_t>(bytes.size(), 1 << 28));
      if (n < 0 && errno == EINTR) continue;
      Note(n >= 0);
      if (ok_) bytes.remove_prefix(static_cast<size_t>(n));
    }
  }

  bool ok() const { return ok_; }

  common::Result<std::string> Commit() {
    if (ok_) Note(::fsync(fd_) == 0 && ::rename(temporary_.c_str(), path_.c_str()) == 0);
    if (!ok_) {
      errno = errno_;
      const std::string reason = common::ErrnoText();
      const auto code = errno == ENOSPC || errno == EDQUOT ? common::ErrorCode::kResourceExhausted
                                                           : common::ErrorCode::kFailedPrecondition;
      return common::Error{code, "cannot write '" + path_.string() + "': " + reason};
    }
    committed_ = true;
    ALLO_RETURN_IF_ERROR(common::SyncDirectory(path_.parent_path()));
    return hash_.FinishHex();
  }

 private:
  // Keeps the reason of the first failure.
  void Note(bool ok) {
    ok_ = ok;
    if (!ok) errno_ = errno;
  }

  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
  int errno_ = 0;
  bool ok_ = true;
  bool committed_ = false;
  common::Sha256 hash_;
};

}  // namespace

common::Result<TensorFile> ReadSafetensors(const std::filesystem::path& path) {
  ALLO_ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(path));
  if (bytes.size() < 8) return Corrupt(path, "shorter than its header length");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - 8) return Corrupt(path, "the header is cut off");
  const Json header = Json::parse(bytes.begin() + 8, bytes.begin() + 8 + static_cast<int64_t>(header_bytes), nullptr,
                                  /*allow_exceptions=*/false);
  if (!header.is_object()) return Corrupt(path, "the header is not a JSON object");
  auto entries = ParseEntries(header, bytes.size() - 8 - header_bytes);
  if (!entries) return Corrupt(path, entries.error().message);
  TensorFile file;
  for (const Entry& entry : *entries) file.tensors[entry.name] = TensorOf(entry, bytes.data() + 8 + header_bytes);
  if (auto metadata = header.find("__metadata__"); metadata != header.end()) {
    if (!metadata->is_object()) return Corrupt(path, "__metadata__ is not an object");
    for (const auto& [key, value] : metadata->items())
      if (value.is_string()) file.metadata[key] = value.get<std::string>();
  }
  return file;
}

common::Result<std::string> WriteSafetensors(const std::filesystem::path& path, TensorFile content,
                                             const std::function<void()>& all_read) {
  for (const auto& [name, tensor] : content.tensors)
    if (!NameOfType(tensor.scalar_type()))
      return common::InvalidArgument("tensor '" + name + "' has a type that safetensors cannot hold");
  std::vector<Piece> pieces = PiecesOf(std::move(content.tensors));
  const std::string header = HeaderOf(pieces, content.metadata);
  const uint64_t header_bytes = header.size();
  HashedFile file(path);
  file.Write({reinterpret_cast<const char*>(&header_bytes), 8});
  file.Write(header);
  for (Piece& piece : pieces) {
    file.Write({static_cast<const char*>(piece.tensor.const_data_ptr()), piece.tensor.nbytes()});
    piece.tensor = at::Tensor();
  }
  if (all_read && file.ok()) all_read();
  return file.Commit();
}

}  // namespace allometry::trainer
