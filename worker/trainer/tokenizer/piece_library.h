#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/result.h"

// SentencePiece behind a wall. Its library and LibTorch's export a variable of one name (FLAGS_minloglevel) and of two
// types: linked into one program, SentencePiece's start-up writes over LibTorch's flags. So SentencePiece is linked
// into a module of its own, which is loaded with its own symbols first and shows the program nothing but this
// interface.
namespace allometry::trainer {

// A loaded model. All functions are thread-safe.
class PieceModel {
 public:
  virtual ~PieceModel() = default;
  virtual int64_t pieces() const = 0;
  virtual int pad_id() const = 0;
  virtual int eos_id() const = 0;
  virtual int unk_id() const = 0;
  virtual std::vector<int> Encode(std::string_view text) const = 0;
  virtual std::string Decode(const std::vector<int>& ids) const = 0;
};

class PieceLibrary {
 public:
  virtual ~PieceLibrary() = default;
  // nullptr: the bytes are no model.
  virtual std::unique_ptr<PieceModel> Load(const std::string& bytes) const = 0;
  // The bytes of a model; empty on failure, with the reason in *error.
  virtual std::string Train(const std::unordered_map<std::string, std::string>& settings,
                            const std::vector<std::string>& sentences, std::string* error) const = 0;
};

// The module, loaded at the first call; it stays. kFailedPrecondition: it is not beside the program. Thread-safe.
common::Result<const PieceLibrary*> LoadPieceLibrary();

inline constexpr char kPieceLibraryFile[] = "liballometry-sentencepiece.so";
inline constexpr char kPieceLibrarySymbol[] = "AllometryPieceLibrary";

}  // namespace allometry::trainer
