#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>

#include "allometry/v1/worker_service.grpc.pb.h"

namespace allometry::bench {

// A worker whose runs take no time: it speaks the whole protocol (complete sets both ways, Finish with a result) over a
// connection of its own, and finishes each lease as soon as it has it. What is left is what dispatching costs.
class ToyWorker {
 public:
  ToyWorker(const std::string& address, int number, int slots, std::atomic<int64_t>* finished);
  ~ToyWorker();  // waits for the calls under way

  void Start();
  void Stop();  // ends the stream

  const std::string& error() const { return error_; }

 private:
  struct FinishCall;
  void Register(int slots);
  void Run();
  bool SendHeld(uint64_t acknowledged);
  void Finish(const v1::Assignment& assignment);
  void Finished(FinishCall* call, const grpc::Status& status);

  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::string name_;
  std::atomic<int64_t>* finished_;
  int64_t worker_id_ = 0;
  grpc::ClientContext sync_context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>> stream_;
  uint64_t number_ = 0;
  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable idle_;
  std::map<int64_t, v1::HeldLease> held_;  // by attempt
  std::unordered_set<int64_t> seen_;       // attempts: orders repeat leases that are finished by now
  int calls_ = 0;
  std::string error_;
};

}  // namespace allometry::bench
