#pragma once

// Tells the thread sanitizer of an order between threads that it cannot see, because a library that is not compiled
// with it keeps that order: gRPC between the start of an operation and its callback. Nothing in other builds.
#ifdef ALLOMETRY_THREAD_SANITIZER
extern "C" void __tsan_release(void* address);
extern "C" void __tsan_acquire(void* address);
#endif

namespace allometry::common {

// What this thread did so far comes before OrderedAfter of the same object.
inline void OrderedBefore([[maybe_unused]] void* object) {
#ifdef ALLOMETRY_THREAD_SANITIZER
  __tsan_release(object);
#endif
}

inline void OrderedAfter([[maybe_unused]] void* object) {
#ifdef ALLOMETRY_THREAD_SANITIZER
  __tsan_acquire(object);
#endif
}

}  // namespace allometry::common
