#include "worker/trainer/data/decompress.h"

#include <fcntl.h>
#include <lzma.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "common/files.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
constexpr size_t kBufferBytes = 1 << 18;

struct Input {
  const char* data = nullptr;
  size_t size = 0;
  bool last = false;  // nothing follows in the file
};

// One compression format. Each call takes from the input's front and writes to `out`.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // Bytes written; -1 for damaged data.
  virtual int64_t Decode(Input* in, char* out, size_t size) = 0;
  // Whether the data may end here.
  virtual bool Complete() const = 0;
};

class PlainDecoder : public Decoder {
 public:
  int64_t Decode(Input* in, char* out, size_t size) override {
    const size_t n = std::min(size, in->size);
    std::memcpy(out, in->data, n);
    in->data += n;
    in->size -= n;
    return static_cast<int64_t>(n);
  }
  bool Complete() const override { return true; }
};

class GzipDecoder : public Decoder {
 public:
  GzipDecoder() { inflateInit2(&stream_, 15 + 16); }  // 16: gzip's header and checksum
  ~GzipDecoder() override { inflateEnd(&stream_); }

  int64_t Decode(Input* in, char* out, size_t size) override {
    if (ended_ && !BeginMember(in)) return in->size == 0 ? 0 : -1;
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in->data));
    stream_.avail_in = static_cast<uInt>(in->size);
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(size);
    const int code = inflate(&stream_, Z_NO_FLUSH);
    in->data += in->size - stream_.avail_in;
    in->size = stream_.avail_in;
    ended_ = code == Z_STREAM_END;
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) return -1;
    return static_cast<int64_t>(size - stream_.avail_out);
  }
  bool Complete() const override { return ended_; }

 private:
  // Zero bytes after a member are padding, as gzip itself takes them.
  bool BeginMember(Input* in) {
    while (in->size > 0 && *in->data == 0) ++in->data, --in->size;
    if (in->size == 0 || *in->data != '\x1f') return false;
    ended_ = false;
    return inflateReset(&stream_) == Z_OK;
  }
  z_stream stream_ = {};
  bool ended_ = false;
};

class XzDecoder : public Decoder {
 public:
  XzDecoder() { usable_ = lzma_stream_decoder(&stream_, UINT64_MAX, LZMA_CONCATENATED) == LZMA_OK; }
  ~XzDecoder() override { lzma_end(&stream_); }

  int64_t Decode(Input* in, char* out, size_t size) override {
    if (!usable_) return -1;
    if (ended_) return 0;
    stream_.next_in = reinterpret_cast<const uint8_t*>(in->data);
    stream_.avail_in = in->size;
    stream_.next_out = reinterpret_cast<uint8_t*>(out);
    stream_.avail_out = size;
    const lzma_ret code = lzma_code(&stream_, in->last ? LZMA_FINISH : LZMA_RUN);
    in->data += in->size - stream_.avail_in;
    in->size = stream_.avail_in;
    ended_ = code == LZMA_STREAM_END;
    if (code != LZMA_OK && code != LZMA_STREAM_END && code != LZMA_BUF_ERROR) return -1;
    return static_cast<int64_t>(size - stream_.avail_out);
  }
  bool Complete() const override { return ended_; }

 private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool usable_ = false, ended_ = false;
};

class ZstdDecoder : public Decoder {
 public:
  ZstdDecoder() : stream_(ZSTD_createDStream()) { ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, 31); }
  ~ZstdDecoder() override { ZSTD_freeDStream(stream_); }

  int64_t Decode(Input* in, char* out, size_t size) override {
    ZSTD_inBuffer from = {in->data, in->size, 0};
    ZSTD_outBuffer to = {out, size, 0};
    const size_t code = ZSTD_decompressStream(stream_, &to, &from);
    if (ZSTD_isError(code)) return -1;
    // With nothing in and nothing out the call says nothing about the frame.
    if (from.pos > 0 || to.pos > 0) ended_ = code == 0;
    in->data += from.pos;
    in->size -= from.pos;
    return static_cast<int64_t>(to.pos);
  }
  bool Complete() const override { return ended_; }

 private:
  ZSTD_DStream* stream_;
  bool ended_ = false;
};

std::unique_ptr<Decoder> DecoderFor(std::string_view head) {
  using std::literals::operator""sv;
  if (head.starts_with("\x1f\x8b"sv)) return std::make_unique<GzipDecoder>();
  if (head.starts_with("\xfd"
                       "7zXZ\0"sv))
    return std::make_unique<XzDecoder>();
  if (head.starts_with("\x28\xb5\x2f\xfd"sv)) return std::make_unique<ZstdDecoder>();
  return std::make_unique<PlainDecoder>();
}

}  // namespace

class TextReader::Impl {
 public:
  Impl(int fd, fs::path path) : path_(std::move(path)), fd_(fd), in_buffer_(kBufferBytes), out_buffer_(kBufferBytes) {}
  ~Impl() { ::close(fd_); }

  common::Result<bool> NextLine(std::string* line) {
    line->clear();
    line_cut_ = false;
    bool any = false;
    for (;;) {
      if (out_begin_ == out_end_) {
        ALLO_ASSIGN_OR_RETURN(const bool more, Refill());
        if (!more) break;
      }
      any = true;
      const char* begin = out_buffer_.data() + out_begin_;
      const size_t left = std::min(out_end_ - out_begin_, kMaxLineBytes - line->size());
      const void* newline = std::memchr(begin, '\n', left);
      const size_t n = newline ? static_cast<size_t>(static_cast<const char*>(newline) - begin) : left;
      line->append(begin, n);
      out_begin_ += n + (newline ? 1 : 0);
      if (newline) break;
      line_cut_ = line->size() == kMaxLineBytes;
      if (line_cut_) return true;
    }
    if (!line->empty() && line->back() == '\r') line->pop_back();
    return any;
  }

  common::Result<std::string> ReadAll() {
    std::string all;
    do {
      all.append(out_buffer_.data() + out_begin_, out_end_ - out_begin_);
      out_begin_ = out_end_;
      ALLO_ASSIGN_OR_RETURN(const bool more, Refill());
      if (!more) return all;
    } while (true);
  }

  int64_t file_bytes() const { return file_bytes_; }
  bool line_cut() const { return line_cut_; }

 private:
  // Puts new decoded bytes into the empty output buffer; false at the end.
  common::Result<bool> Refill() {
    out_begin_ = out_end_ = 0;
    while (out_end_ == 0) {
      if (in_.size == 0 && !in_.last) ALLO_RETURN_IF_ERROR(ReadInput());
      if (!decoder_) decoder_ = DecoderFor({in_.data, in_.size});
      const size_t before = in_.size;
      const int64_t n = decoder_->Decode(&in_, out_buffer_.data(), out_buffer_.size());
      if (n < 0) return Damaged("damaged");
      out_end_ = static_cast<size_t>(n);
      if (n > 0 || !in_.last) continue;
      if (in_.size == 0) return decoder_->Complete() ? common::Result<bool>(false) : Damaged("cut off");
      if (in_.size == before) return Damaged("damaged");
    }
    return true;
  }

  common::Error Damaged(const char* how) const {
    return common::DataLoss("'" + path_.string() + "' cannot be decompressed: the file is " + how +
                            "; fetch or pack it again");
  }

  // Fills the input buffer, so that a short read never hides a file's first bytes.
  common::Status ReadInput() {
    size_t size = 0;
    while (size < in_buffer_.size()) {
      const ssize_t n = ::read(fd_, in_buffer_.data() + size, in_buffer_.size() - size);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return common::DataLoss("cannot read '" + path_.string() + "': " + common::ErrnoText());
      if (n == 0) {
        in_.last = true;
        break;
      }
      size += static_cast<size_t>(n);
    }
    in_.data = in_buffer_.data();
    in_.size = size;
    file_bytes_ += static_cast<int64_t>(size);
    return common::Ok();
  }

  fs::path path_;
  int fd_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<char> in_buffer_, out_buffer_;
  Input in_;
  size_t out_begin_ = 0, out_end_ = 0;
  int64_t file_bytes_ = 0;
  bool line_cut_ = false;
};

common::Result<TextReader> TextReader::Open(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return TextReader(std::make_unique<Impl>(fd, path));
  }
  const auto code = errno == ENOENT ? common::ErrorCode::kNotFound : common::ErrorCode::kPermissionDenied;
  return common::Error{code, "cannot open '" + path.string() + "': " + common::ErrnoText()};
}

TextReader::TextReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TextReader::TextReader(TextReader&&) noexcept = default;
TextReader::~TextReader() = default;
common::Result<bool> TextReader::NextLine(std::string* line) { return impl_->NextLine(line); }
common::Result<std::string> TextReader::ReadAll() { return impl_->ReadAll(); }
int64_t TextReader::file_bytes() const { return impl_->file_bytes(); }
bool TextReader::line_cut() const { return impl_->line_cut(); }

}  // namespace allometry::trainer
