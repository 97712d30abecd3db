#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/trainer/distributed/collective.h"

namespace allometry::trainer {

// The ranks of one attempt: a Collective for tensors, and short words between the hosts. Every rank makes the same
// calls in the same order. Not thread-safe; failures are PeerLost.
class RankGroup {
 public:
  // Waits until all ranks have met. `device`: ranks on GPUs exchange tensors by NCCL, the others over TCP.
  RankGroup(const MeshOptions& options, const at::Device& device);

  int rank() const { return mesh_.rank(); }
  int size() const { return mesh_.size(); }
  bool is_first() const { return rank() == 0; }
  Collective& tensors() { return *collective_; }
  const Collective& tensors() const { return *collective_; }

  // The rows of a batch that are this rank's: first and count.
  struct Rows {
    int64_t first, count;
  };
  Rows RowsOf(int64_t batch) const {
    const int64_t first = batch * rank() / size(), end = batch * (rank() + 1) / size();
    return {first, end - first};
  }

  // Sums over all ranks, in the order of the ranks.
  std::vector<double> Sum(std::vector<double> values);
  // Whether it is true on every rank.
  bool All(bool own) { return Sum({own ? 1.0 : 0.0})[0] == size(); }
  // Rank 0's text, on every rank; the others' argument is ignored.
  std::string FromFirst(std::string text);
  // What f returns at rank 0, on every rank. While it computes, however long, the others wait.
  std::string FirstComputes(const std::function<std::string()>& f);
  // Every rank's text, by rank, at rank 0; empty at the others.
  std::vector<std::string> AtFirst(std::string text);
  // Rank 0's CPU tensors, on every rank; the others' argument is ignored.
  std::map<std::string, at::Tensor> FromFirst(std::map<std::string, at::Tensor> tensors);
  // All ranks' tensors together at rank 0, on the CPU; empty at the others. A name that comes twice is one of them.
  std::map<std::string, at::Tensor> AtFirst(const std::map<std::string, at::Tensor>& tensors);

 private:
  TcpMesh mesh_;  // channel 0: words; channel 1: tensors of CPUs
  std::unique_ptr<Collective> collective_;
};

}  // namespace allometry::trainer
