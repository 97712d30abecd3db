// The emulated device's memory: every allocation ends at a page that nobody may touch, so that a kernel which reads or
// writes behind its arrays is stopped there. Bytes that lie between are checked at the release, as those before are.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "worker/trainer/kernels/kernel_table.h"

namespace allometry::trainer::kernels {
namespace {

constexpr unsigned char kGuard = 0xa5, kUnset = 0xff;

struct Range {
  unsigned char* base;
  size_t mapped, used;
};
std::map<void*, Range>& Ranges() {
  static std::map<void*, Range> ranges;
  return ranges;
}

size_t RoundedUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void* Allocate(size_t bytes) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t mapped = RoundedUp(bytes, page) + 2 * page;
  auto* base =
      static_cast<unsigned char*>(::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (base == MAP_FAILED) std::abort();
  ::mprotect(base + mapped - page, page, PROT_NONE);
  std::memset(base, kGuard, mapped - page);
  unsigned char* memory = base + mapped - page - RoundedUp(bytes, 16);
  std::memset(memory, kUnset, bytes);
  Ranges()[memory] = {base, mapped, bytes};
  return memory;
}

void Release(void* memory) {
  if (memory == nullptr) return;
  const auto found = Ranges().find(memory);
  if (found == Ranges().end()) std::abort();
  const Range range = found->second;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const unsigned char *used = static_cast<unsigned char*>(memory), *end = range.base + range.mapped - page;
  for (const unsigned char* p = range.base; p < end; ++p)
    if ((p < used || p >= used + range.used) && *p != kGuard) {
      std::fprintf(stderr, "a kernel wrote %td bytes from the start of an array of %zu\n", p - used, range.used);
      std::abort();
    }
  ::munmap(range.base, range.mapped);
  Ranges().erase(found);
}

int DeviceCount() { return 1; }
const char* LastError() { return nullptr; }
void Copy(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace

void AddDeviceFunctions(KernelTable& table) {
  table.device_count = &DeviceCount;
  table.last_error = &LastError;
  table.allocate = &Allocate;
  table.release = &Release;
  table.to_device = &Copy;
  table.to_host = &Copy;
}

}  // namespace allometry::trainer::kernels
