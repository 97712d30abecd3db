#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace allometry::worker {

struct WorkerOptions {
  std::string coordinator;               // "host:port"
  std::string token;                     // sent as "authorization: Bearer <token>"; empty: none
  std::string ca_file;                   // PEM file of the authorities to trust: TLS; empty: no TLS
  std::string name;                      // for people; empty: the host and a mark of the work directory
  std::filesystem::path work_directory;  // runs, blobs, logs; one worker at a time
  int slots = 1;                         // attempts at once; with GPUs each is a slot instead, which small runs share
  int threads_per_slot = 0;              // 0: cores / slots
  // What this machine allows to be executed: name in sweep files -> command line. "builtin" is allo-trainer.
  std::map<std::string, std::vector<std::string>> trainers;
  std::vector<std::filesystem::path> data_roots;  // searched for raw files by name, size and hash
  int64_t idle_timeout_s = 0;                     // leave after so long without an attempt; 0: stay
  std::string cluster_id;                         // refuse any other cluster; empty: the first one met
  int64_t grace_s = 30;                           // from SIGTERM to SIGKILL
  int64_t checkpoint_interval_s = 30;             // asked of trainers
  std::string address = "0.0.0.0";                // where trainers listen for the ranks of their gang on other workers
  int64_t probe_interval_s = 30;                  // between looks at devices that are out of service
  bool use_kernels = true;                        // the built-in trainer's, on GPUs where they prove right
  bool use_devices = true;                        // ask the built-in trainer for GPUs; false: CPU only
};

}  // namespace allometry::worker
