#include "worker/trainer/distributed/rank_group.h"

#include <ATen/ATen.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "worker/trainer/distributed/nccl_collective.h"

namespace allometry::trainer {
namespace {

using common::Json;
using Tensors = std::map<std::string, at::Tensor>;

constexpr int kWords = 0, kTensors = 1;  // on GPUs channel 1 carries nothing, and shows who is gone

MeshOptions WithId(MeshOptions options, const at::Device& device) {
  if (device.is_cuda() && options.rank == 0) options.extra = {{"nccl_id", NewNcclId()}};
  return options;
}

std::span<char> BytesOf(const at::Tensor& t) { return {static_cast<char*>(t.data_ptr()), t.nbytes()}; }

// What is needed to make room for tensors: name, type, sizes.
std::string Describe(const Tensors& tensors) {
  Json list = Json::array();
  for (const auto& [name, tensor] : tensors)
    list.push_back({name, static_cast<int>(tensor.scalar_type()), tensor.sizes().vec()});
  return list.dump();
}

Tensors RoomFor(const std::string& description) {
  Tensors tensors;
  for (const Json& entry : Json::parse(description)) {
    const auto type = static_cast<at::ScalarType>(entry.at(1).get<int>());
    tensors[entry.at(0).get<std::string>()] = at::empty(entry.at(2).get<std::vector<int64_t>>(), type);
  }
  return tensors;
}

}  // namespace

RankGroup::RankGroup(const MeshOptions& options, const at::Device& device) : mesh_(WithId(options, device), 2) {
  if (device.is_cuda())
    collective_ = std::make_unique<NcclCollective>(
        mesh_.extra().at("nccl_id").get<std::string>(), rank(), size(), device,
        [this] { return mesh_.LostPeer(kTensors); }, std::chrono::seconds(options.silence_timeout_s));
  else
    collective_ = std::make_unique<TcpCollective>(mesh_, kTensors);
}

std::vector<std::string> RankGroup::AtFirst(std::string text) {
  if (!is_first()) {
    mesh_.SendMessage(kWords, 0, text);
    return {};
  }
  std::vector<std::string> all{std::move(text)};
  for (int peer = 1; peer < size(); ++peer) all.push_back(mesh_.ReceiveMessage(kWords, peer));
  return all;
}

std::string RankGroup::FromFirst(std::string text) {
  if (!is_first()) return mesh_.ReceiveMessage(kWords, 0);
  for (int peer = 1; peer < size(); ++peer) mesh_.SendMessage(kWords, peer, text);
  return text;
}

// A peer that says nothing for long is taken for lost, so rank 0 gives signs of life meanwhile.
std::string RankGroup::FirstComputes(const std::function<std::string()>& f) {
  constexpr auto kSignEvery = std::chrono::seconds(30);
  const std::string sign = ".", mark = "=";
  if (!is_first()) {
    std::string text = sign;
    while (text == sign) text = mesh_.ReceiveMessage(kWords, 0);
    return text.substr(mark.size());
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::exception_ptr failure;
  std::thread signs([&] {
    std::unique_lock lock(mutex);
    while (!changed.wait_for(lock, kSignEvery, [&] { return done; })) {
      try {
        FromFirst(sign);
      } catch (...) {
        failure = std::current_exception();
        return;
      }
    }
  });
  const auto stop = [&] {
    {
      std::lock_guard lock(mutex);
      done = true;
    }
    changed.notify_all();
    signs.join();
  };
  std::string text;
  try {
    text = f();
  } catch (...) {
    stop();
    throw;
  }
  stop();
  if (failure) std::rethrow_exception(failure);
  FromFirst(mark + text);
  return text;
}

std::vector<double> RankGroup::Sum(std::vector<double> values) {
  const size_t bytes = values.size() * sizeof(double);
  std::string text(bytes, '\0');
  std::memcpy(text.data(), values.data(), bytes);
  const std::vector<std::string> all = AtFirst(text);
  for (size_t peer = 1; peer < all.size(); ++peer) {
    if (all[peer].size() != bytes) throw PeerLost("rank " + std::to_string(peer) + " sums other values");
    for (size_t i = 0; i < values.size(); ++i) {
      double more = 0;
      std::memcpy(&more, all[peer].data() + i * sizeof more, sizeof more);
      values[i] += more;
    }
  }
  std::memcpy(text.data(), values.data(), bytes);
  text = FromFirst(std::move(text));
  if (text.size() != bytes) throw PeerLost("rank 0 sums other values");
  std::memcpy(values.data(), text.data(), bytes);
  return values;
}

Tensors RankGroup::FromFirst(Tensors tensors) {
  const std::string description = FromFirst(Describe(tensors));
  if (!is_first()) tensors = RoomFor(description);
  for (auto& [name, tensor] : tensors) {
    if (!is_first()) {
      mesh_.Receive(kWords, 0, BytesOf(tensor));
      continue;
    }
    const at::Tensor sent = tensor.to(at::kCPU).contiguous();
    for (int peer = 1; peer < size(); ++peer) mesh_.Send(kWords, peer, BytesOf(sent));
  }
  return tensors;
}

Tensors RankGroup::AtFirst(const Tensors& tensors) {
  const std::vector<std::string> descriptions = AtFirst(Describe(tensors));
  if (!is_first()) {
    for (const auto& [name, tensor] : tensors) mesh_.Send(kWords, 0, BytesOf(tensor.to(at::kCPU).contiguous()));
    return {};
  }
  Tensors all;
  for (const auto& [name, tensor] : tensors) all[name] = tensor.to(at::kCPU);
  for (int peer = 1; peer < size(); ++peer)
    for (auto& [name, tensor] : RoomFor(descriptions[static_cast<size_t>(peer)])) {
      mesh_.Receive(kWords, peer, BytesOf(tensor));
      all[name] = tensor;
    }
  return all;
}

}  // namespace allometry::trainer
