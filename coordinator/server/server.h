#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "common/result.h"
#include "coordinator/server/data_directory.h"
#include "coordinator/server/listen.h"

namespace allometry::coordinator {

struct CoordinatorOptions {
  std::filesystem::path data_dir;  // empty: DefaultDataDir()
  ListenOptions listen;
  int64_t lease_ttl_ms = 300'000;
  int64_t renew_interval_ms = 10'000;
  int64_t checkpoint_upload_interval_ms = 900'000;
  int64_t collect_interval_ms = 3'600'000;  // how often unnamed blobs are looked for
  int64_t blob_grace_ms = 86'400'000;       // how long a blob may stay unnamed
};

// A whole coordinator: data directory, database, state, gRPC. The same in `allo coordinator` and within `allo run`. Its
// methods may be called from any thread.
class CoordinatorServer {
 public:
  // Everything that can be wrong is said here: kPermissionDenied (directory not writable; an open address without TLS
  // and token), kFailedPrecondition (directory in use, database newer than this program, port in use, address not this
  // machine's), kInvalidArgument (address, TLS files).
  static common::Result<std::unique_ptr<CoordinatorServer>> Start(const CoordinatorOptions& options);
  ~CoordinatorServer();  // Stop
  CoordinatorServer(const CoordinatorServer&) = delete;
  CoordinatorServer& operator=(const CoordinatorServer&) = delete;

  std::string address() const;  // "127.0.0.1:41873", with the port that was given or chosen
  std::string cluster_id() const;
  std::filesystem::path data_dir() const;

  // Ends streams, answers what is queued after its commit, closes the database. Running leases go on at the next start.
  // Blocks until done; again is harmless.
  void Stop();
  // Blocks until Stop has been called and is done.
  void Wait();

  // CPU time (user and system) of the thread that owns the state, for measurements.
  int64_t StrandCpuNanoseconds() const;

 private:
  class Impl;
  explicit CoordinatorServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace allometry::coordinator
