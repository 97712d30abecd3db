#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/json.h"

namespace allometry::trainer {

// A rank of this attempt is gone, or says nothing any more: the attempt cannot go on. Thrown by whatever waits for it.
class PeerLost : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A rank could not be reached, or said nothing on a connection that stands, for as long as ranks are waited for.
class CollectiveTimeout : public PeerLost {
  using PeerLost::PeerLost;
};

// The process was asked to stop before all ranks had met.
class MeetingCancelled : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// How the ranks of one attempt find one another.
struct MeshOptions {
  int rank = 0;
  int ranks = 1;
  // An address (IPv4) or a name of this machine under which the other ranks reach it; "0.0.0.0" is every interface.
  // Each rank takes a free port there.
  std::string listen = "127.0.0.1";
  // Rank 0 hands out its word, at most 4096 bytes, here; the other ranks get it from `wait_for_word`, which may block.
  std::function<void(const std::string& word)> publish_word;
  std::function<std::string()> wait_for_word;
  common::Json extra = nullptr;      // rank 0: travels in the word (NCCL's unique id)
  std::function<bool()> cancelled;   // asked while ranks have not met yet; may be empty
  int64_t connect_timeout_s = 1800;  // of each step of the meeting, see TcpMesh
  int64_t silence_timeout_s = 1800;  // of a peer that is waited for and whose connection stands
};

// Connections between every two of the ranks, on each of `channels` independent ones. Who connects must know the
// random key in rank 0's word (challenge and response by HMAC-SHA-256); what is sent afterwards is not encrypted, as
// NCCL's traffic is not: the ranks' network must be trusted. A peer that dies closes its connections; one whose host
// vanishes is noticed within about 30 s by TCP's keep-alive.
//
// A rank begins when its inputs are there, so two waits have no limit: for rank 0's word, and rank 0's for the first of
// the others. After them a step of the meeting that takes `connect_timeout_s` (and the try to connect that is under
// way) is a CollectiveTimeout that says which ranks and addresses. The steps: reaching rank 0; until rank 0 has heard
// of all, where the others wait 10 s more since it can say who is missing; reaching those between; being reached by
// those above.
//
// One thread at a time for each channel. All failures are PeerLost; of the constructor also MeetingCancelled.
class TcpMesh {
 public:
  TcpMesh(const MeshOptions& options, int channels);
  ~TcpMesh();
  TcpMesh(const TcpMesh&) = delete;
  TcpMesh& operator=(const TcpMesh&) = delete;

  int rank() const { return options_.rank; }
  int size() const { return options_.ranks; }
  const common::Json& extra() const { return extra_; }  // rank 0's, on every rank

  void Send(int channel, int to, std::span<const char> bytes);
  void Receive(int channel, int from, std::span<char> bytes);
  // Both at once, so that a ring of ranks that all send cannot stand still. `to` and `from` may be the same rank.
  void Exchange(int channel, int to, std::span<const char> sent, int from, std::span<char> received);

  // A length and bytes.
  void SendMessage(int channel, int to, const std::string& message);
  std::string ReceiveMessage(int channel, int from);

  // Why a peer is gone, seen on a channel that carries nothing; empty while all connections stand. Does not wait.
  std::string LostPeer(int channel);
  // Bytes that this rank has sent since the ranks have met, on all channels.
  int64_t bytes_sent() const { return bytes_sent_; }
  // Closes all connections: every peer that waits sees this rank as lost. Also for another thread.
  void Shutdown();

 private:
  void Meet(int channels);
  void AwaitHigherRanks(int listener, const std::string& key, const std::string& where);
  void AwaitTable();
  std::string MissingHigherRanks();
  int& Connection(int channel, int peer) { return connections_[static_cast<size_t>(channel * size() + peer)]; }

  MeshOptions options_;
  common::Json extra_;
  std::vector<int> connections_;  // by channel and peer; -1: none
  std::atomic<int64_t> bytes_sent_{0};
};

}  // namespace allometry::trainer
