#pragma once

#include <cstdint>

namespace allometry::sim {

// The system's SQLite VFS with a disk that fills up. One for the process; used by one thread.
class FullDiskVfs {
 public:
  static const char* Name();  // for sqlite3_open_v2; registers at the first call
  // The n-th write from now (counted from 1) and all after it fail with "disk full", until MakeRoom().
  static void FillAtWrite(int64_t n);
  static void MakeRoom();
  static bool WasFull();  // since FillAtWrite
};

}  // namespace allometry::sim
