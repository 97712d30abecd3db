// NCCL's C interface over the memory of one process, whose threads are the ranks: what NcclCollective calls, and how it
// takes errors, is tested with it where there is no GPU. Communicators do not block, as NcclCollective asks for: a call
// leaves something in progress, and another one before that is done is refused, as NCCL refuses it. (What NCCL would
// put on a stream is done inside the call, which waits for the other ranks.)
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Id {
  char bytes[128];
};

// All ranks of one communicator.
struct World {
  int ranks = 0;
  std::atomic<int> joined = 0;
  std::mutex mutex;
  std::condition_variable changed;
  int arrived = 0;
  int64_t round = 0;
  std::vector<const void*> sources;
  std::map<std::pair<int, int>, const void*> letters;  // from, to
  bool aborted = false;
};

struct Rank {
  World* world;
  int rank;
  std::atomic<int> busy = 0;  // answers "in progress" to come
};

constexpr int kInvalidArgument = 4, kInProgress = 7, kAnswersInProgress = 3;

struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

std::mutex worlds_mutex;
std::map<std::string, World*> worlds;
std::atomic<int> next_id{1}, async_error{0}, aborts{0};
std::atomic<bool> graphs_held{false};
thread_local int group_depth = 0;

struct Letter {
  Rank* rank;
  const void* sent;
  void* received;
  size_t bytes;
  int peer;
};
thread_local std::vector<Letter> outbox;

// Waits for all ranks; false if the communicator was aborted before all had come. (A rank that leaves afterwards aborts
// it too, perhaps before the others have woken.)
bool Meet(World& world) {
  std::unique_lock lock(world.mutex);
  const int64_t round = world.round;
  if (++world.arrived == world.ranks) {
    world.arrived = 0;
    ++world.round;
    world.changed.notify_all();
  } else {
    world.changed.wait(lock, [&] { return world.round != round || world.aborted; });
  }
  return world.round != round;
}

size_t SizeOf(int type) { return type == 1 ? 1 : type == 9 ? 2 : type == 7 ? 4 : 8; }

template <typename T>
void AddAll(const World& world, std::vector<char>& sum, size_t count) {
  auto* to = reinterpret_cast<T*>(sum.data());
  for (const void* source : world.sources)
    for (size_t i = 0; i < count; ++i) to[i] += static_cast<const T*>(source)[i];
}

bool IsReady(const Rank& rank) { return rank.busy == 0 && rank.world->joined == rank.world->ranks; }

int Begin(Rank& rank) {
  rank.busy = kAnswersInProgress;
  return kInProgress;
}

int Reduce(const void* source, void* target, size_t count, int type, int root, Rank* rank) {
  World& world = *rank->world;
  if (!IsReady(*rank)) return kInvalidArgument;
  world.sources[static_cast<size_t>(rank->rank)] = source;
  if (!Meet(world)) return 6;
  std::vector<char> sum(count * SizeOf(type), 0);
  if (type == 4) AddAll<int64_t>(world, sum, count);
  if (type == 7) AddAll<float>(world, sum, count);
  if (type == 8) AddAll<double>(world, sum, count);
  if (!Meet(world)) return 6;  // nobody writes before all have read
  if (root < 0 || root == rank->rank) std::memcpy(target, sum.data(), sum.size());
  return group_depth > 0 ? 0 : Begin(*rank);
}

}  // namespace

extern "C" {

void StubSetAsyncError(int code) { async_error = code; }
int StubAborts() { return aborts; }
// As long as graphs hold calls of a communicator, its abort does not come to its end.
void StubHoldGraphs(int held) {
  graphs_held = held != 0;
  graphs_held.notify_all();
}

int ncclGetUniqueId(Id* id) {
  std::memset(id->bytes, 0, sizeof id->bytes);
  const int number = next_id++;
  std::memcpy(id->bytes, &number, sizeof number);
  return 0;
}

int ncclCommInitRankConfig(void** communicator, int ranks, Id id, int rank, const Config* config) {
  if (config->size < sizeof(Config) || config->magic != 0xcafebeef || config->version < 21400 || config->blocking != 0)
    return kInvalidArgument;
  World* world = nullptr;
  {
    std::lock_guard lock(worlds_mutex);
    World*& known = worlds[std::string(id.bytes, sizeof id.bytes)];
    if (!known) {
      known = new World;
      known->ranks = ranks;
      known->sources.resize(static_cast<size_t>(ranks));
    }
    world = known;
  }
  *communicator = new Rank{world, rank};
  ++world->joined;
  return kInProgress;
}

int ncclCommAbort(void* communicator) {
  World& world = *static_cast<Rank*>(communicator)->world;
  ++aborts;
  {
    std::lock_guard lock(world.mutex);
    world.aborted = true;
    world.changed.notify_all();
  }
  graphs_held.wait(true);
  return 0;
}

int ncclCommGetAsyncError(void* communicator, int* error) {
  auto& rank = *static_cast<Rank*>(communicator);
  *error = async_error != 0 ? async_error.load() : IsReady(rank) ? 0 : kInProgress;
  if (rank.busy > 0) --rank.busy;
  return 0;
}

const char* ncclGetErrorString(int code) {
  return code == 6 ? "remote process exited" : code == 1 ? "unhandled cuda error" : "stub error";
}

int ncclAllReduce(const void* source, void* target, size_t count, int type, int, void* communicator, void*) {
  return Reduce(source, target, count, type, -1, static_cast<Rank*>(communicator));
}

int ncclReduce(const void* source, void* target, size_t count, int type, int, int root, void* communicator, void*) {
  return Reduce(source, target, count, type, root, static_cast<Rank*>(communicator));
}

int ncclBroadcast(const void* source, void* target, size_t count, int type, int root, void* communicator, void*) {
  auto* rank = static_cast<Rank*>(communicator);
  World& world = *rank->world;
  if (!IsReady(*rank)) return kInvalidArgument;
  world.sources[static_cast<size_t>(rank->rank)] = source;
  if (!Meet(world)) return 6;
  if (rank->rank != root) std::memcpy(target, world.sources[static_cast<size_t>(root)], count * SizeOf(type));
  if (!Meet(world)) return 6;
  return group_depth > 0 ? 0 : Begin(*rank);
}

int ncclSend(const void* source, size_t count, int type, int peer, void* communicator, void*) {
  outbox.push_back({static_cast<Rank*>(communicator), source, nullptr, count * SizeOf(type), peer});
  return group_depth > 0 ? 0 : 5;  // the tests exchange in groups only
}

int ncclRecv(void* target, size_t count, int type, int peer, void* communicator, void*) {
  outbox.push_back({static_cast<Rank*>(communicator), nullptr, target, count * SizeOf(type), peer});
  return group_depth > 0 ? 0 : 5;
}

int ncclGroupStart() {
  ++group_depth;
  return 0;
}

int ncclGroupEnd() {
  if (--group_depth > 0 || outbox.empty()) return 0;
  const std::vector<Letter> letters = std::move(outbox);
  outbox.clear();
  World& world = *letters[0].rank->world;
  if (!IsReady(*letters[0].rank)) return kInvalidArgument;
  {
    std::lock_guard lock(world.mutex);
    for (const Letter& letter : letters)
      if (letter.sent) world.letters[{letter.rank->rank, letter.peer}] = letter.sent;
  }
  if (!Meet(world)) return 6;
  for (const Letter& letter : letters)
    if (letter.received) std::memcpy(letter.received, world.letters.at({letter.peer, letter.rank->rank}), letter.bytes);
  return Meet(world) ? Begin(*letters[0].rank) : 6;
}
}
