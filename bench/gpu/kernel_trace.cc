// What a program's GPU was busy with: a library that CUDA loads into it (CUDA_INJECTION64_PATH) and that writes a line for every
// kernel, copy and fill to $ALLOMETRY_TRACE: start and end in nanoseconds of the system's clock, a tab, the kernel's name.
//
//   g++ -shared -fPIC -O2 kernel_trace.cc -I CUDA/include -o libtrace.so /path/to/libcupti.so.13
//
// Programs that end by _Exit lose the last tenth of a second of it.
#include <cupti.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

namespace {

constexpr size_t kBufferBytes = 1 << 20;
FILE* out = nullptr;

uint64_t SystemNanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

void CUPTIAPI GiveBuffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  *size = kBufferBytes;
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(64, kBufferBytes));
  *most_records = 0;
}

void Write(uint64_t start, uint64_t end, const char* name) {
  std::fprintf(out, "%" PRIu64 "\t%" PRIu64 "\t%s\n", start, end, name);
}

void CUPTIAPI TakeBuffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL || record->kind == CUPTI_ACTIVITY_KIND_KERNEL) {
      const auto* kernel = reinterpret_cast<CUpti_ActivityKernel10*>(record);
      Write(kernel->start, kernel->end, kernel->name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* copy = reinterpret_cast<CUpti_ActivityMemcpy6*>(record);
      Write(copy->start, copy->end, "[copy]");
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      const auto* fill = reinterpret_cast<CUpti_ActivityMemset4*>(record);
      Write(fill->start, fill->end, "[fill]");
    }
  }
  std::free(buffer);
  std::fflush(out);
}

void* Flush(void*) {
  for (;;) {
    usleep(100000);
    cuptiActivityFlushAll(0);
  }
}

}  // namespace

extern "C" int InitializeInjection() {
  const char* path = std::getenv("ALLOMETRY_TRACE");
  if (!path || !(out = std::fopen(path, "w"))) return 1;
  cuptiActivityRegisterTimestampCallback(&SystemNanoseconds);  // where this fails, the clock is CUPTI's, which is near
  cuptiActivityRegisterCallbacks(&GiveBuffer, &TakeBuffer);
  for (const CUpti_ActivityKind kind :
       {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET})
    if (cuptiActivityEnable(kind) != CUPTI_SUCCESS) std::fprintf(stderr, "trace: no records of kind %d\n", kind);
  pthread_t thread;
  pthread_create(&thread, nullptr, &Flush, nullptr);
  return 1;
}
