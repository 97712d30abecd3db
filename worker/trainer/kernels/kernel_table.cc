#include "worker/trainer/kernels/kernel_table.h"

#include <dlfcn.h>

#include <filesystem>

namespace allometry::trainer::kernels {
namespace {

namespace fs = std::filesystem;

struct Loaded {
  const KernelTable* table = nullptr;
  std::string why_not;
};

Loaded Load() {
  void* module = ::dlopen(FindModule(kKernelLibraryFile).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) return {nullptr, ::dlerror()};
  void* symbol = ::dlsym(module, kKernelLibrarySymbol);
  if (symbol == nullptr) return {nullptr, ::dlerror()};
  const KernelTable* table = reinterpret_cast<const KernelTable* (*)()>(symbol)();
  if (table->version != kKernelTableVersion || table->bytes != sizeof(KernelTable))
    return {nullptr, std::string(kKernelLibraryFile) + " is of another version than this program"};
  if (table->device_count() < 1) return {nullptr, "there is no GPU that CUDA can use"};
  return {table, {}};
}

}  // namespace

std::string FindModule(const std::string& file) {
  std::error_code ec;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ec).parent_path();
  for (const fs::path& place : {folder, folder.parent_path()})
    if (fs::exists(place / file, ec)) return place / file;
  return file;
}

const KernelTable* LoadKernelTable(std::string* why_not) {
  static const Loaded loaded = Load();
  if (why_not) *why_not = loaded.why_not;
  return loaded.table;
}

}  // namespace allometry::trainer::kernels
