#include "worker/trainer/tokenizer/piece_library.h"

#include <dlfcn.h>

#include <filesystem>

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;

// Beside the program, or beside the folder that it lies in (tests).
fs::path FindModule() {
  std::error_code ec;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ec).parent_path();
  for (const fs::path& place : {folder, folder.parent_path()})
    if (fs::exists(place / kPieceLibraryFile, ec)) return place / kPieceLibraryFile;
  return kPieceLibraryFile;  // wherever the system's loader looks
}

common::Result<const PieceLibrary*> Load() {
  const fs::path path = FindModule();
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  void* symbol = module == nullptr ? nullptr : ::dlsym(module, kPieceLibrarySymbol);
  if (symbol == nullptr)
    return common::FailedPrecondition(std::string("SentencePiece cannot be loaded: ") + ::dlerror() + "; " +
                                      kPieceLibraryFile + " belongs beside allo-trainer");
  return reinterpret_cast<const PieceLibrary* (*)()>(symbol)();
}

}  // namespace

common::Result<const PieceLibrary*> LoadPieceLibrary() {
  static const common::Result<const PieceLibrary*> library = Load();
  return library;
}

}  // namespace allometry::trainer
