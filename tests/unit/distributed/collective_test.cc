#include "worker/trainer/distributed/collective.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/unit/distributed/ranks.h"
#include "worker/trainer/distributed/gradient_reducer.h"
#include "worker/trainer/distributed/sharded_optimizer.h"

namespace allometry::trainer {
namespace {

// What a rank brings: whole numbers, so that every order of summation gives the same.
at::Tensor Values(int64_t size, int rank, at::ScalarType type) {
  return (at::arange(size, at::kLong) * (rank + 1) % 1000 + rank).to(type);
}

at::Tensor SumOfAll(int64_t size, int ranks, at::ScalarType type) {
  at::Tensor sum = at::zeros({size}, type);
  for (int rank = 0; rank < ranks; ++rank) sum += Values(size, rank, type);
  return sum;
}

// Parts of very different sizes, one of them empty.
Bounds UnevenBounds(int64_t size, int ranks) {
  Bounds bounds = EvenBounds(size, ranks);
  for (size_t r = 1; r + 1 < bounds.size(); ++r) bounds[r] = bounds[r] / 3;
  if (ranks > 2) bounds[2] = bounds[1];
  return bounds;
}

class OnEveryNumberOfRanks : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, OnEveryNumberOfRanks, ::testing::Values(1, 2, 3, 4));

TEST_P(OnEveryNumberOfRanks, AllReduceIsTheSum) {
  InGroup(GetParam(), [&](RankGroup& group) {
    for (const auto type : {at::kFloat, at::kDouble, at::kLong})
      for (int64_t size : {0, 1, 2, 5, 1000, 100'003, 400'001}) {
        const at::Tensor tensor = Values(size, group.rank(), type);
        group.tensors().AllReduce(tensor);
        EXPECT_TRUE(at::equal(tensor, SumOfAll(size, group.size(), type))) << size;
      }
  });
}

TEST_P(OnEveryNumberOfRanks, AllReduceGivesAllTheSameBitsEveryTime) {
  std::vector<at::Tensor> results(static_cast<size_t>(2 * GetParam()));
  for (int round : {0, 1})
    InGroup(GetParam(), [&](RankGroup& group) {
      const at::Tensor tensor = at::sin(at::arange(10'007, at::kFloat) * (group.rank() + 1));
      group.tensors().AllReduce(tensor);
      results[static_cast<size_t>(round * group.size() + group.rank())] = tensor;
    });
  for (const at::Tensor& result : results) EXPECT_TRUE(at::equal(result, results[0]));
}

TEST_P(OnEveryNumberOfRanks, PartsAreSummedAndGathered) {
  InGroup(GetParam(), [&](RankGroup& group) {
    for (int64_t size : {0, 3, 9, 1001, 400'001}) {  // the last in several pieces
      const Bounds bounds = UnevenBounds(size, group.size());
      const at::Tensor tensor = Values(size, group.rank(), at::kFloat);
      group.tensors().ReduceScatter(tensor, bounds);
      const auto r = static_cast<size_t>(group.rank());
      const auto own = [&](const at::Tensor& t) { return t.narrow(0, bounds[r], bounds[r + 1] - bounds[r]); };
      EXPECT_TRUE(at::equal(own(tensor), own(SumOfAll(size, group.size(), at::kFloat))));
      group.tensors().AllGather(tensor, bounds);
      EXPECT_TRUE(at::equal(tensor, SumOfAll(size, group.size(), at::kFloat)));
    }
  });
}

TEST_P(OnEveryNumberOfRanks, BroadcastIsTheRootsAndAllToAllATransposition) {
  InGroup(GetParam(), [&](RankGroup& group) {
    for (int root = 0; root < group.size(); ++root)
      for (int64_t size : {1, 700'001}) {  // more than one piece
        const at::Tensor tensor = Values(size, group.rank(), at::kFloat).to(at::kBFloat16);
        group.tensors().Broadcast(tensor, root);
        EXPECT_TRUE(at::equal(tensor, Values(size, root, at::kFloat).to(at::kBFloat16)));
      }
    const at::Tensor sent =
        (at::arange(group.size(), at::kLong) * 10 + group.rank() * 1000).view({-1, 1}).expand({-1, 3});
    const at::Tensor received = group.tensors().AllToAll(sent.contiguous());
    for (int peer = 0; peer < group.size(); ++peer)
      EXPECT_TRUE(at::equal(received[peer], at::full({3}, 10 * group.rank() + 1000 * peer, at::kLong)));
  });
}

// The least that is possible: 2 (n - 1) / n of the bytes for an all-reduce.
TEST_P(OnEveryNumberOfRanks, NoMoreIsSentThanMustBe) {
  InGroup(GetParam(), [&](RankGroup& group) {
    const int64_t n = group.size(), size = 12'000;
    const int64_t before = group.tensors().bytes_sent();
    group.tensors().AllReduce(at::ones({size}));
    EXPECT_EQ(group.tensors().bytes_sent() - before, 4 * size * 2 * (n - 1) / n);
  });
}

TEST_P(OnEveryNumberOfRanks, CallsGoOnWhileTheCallerComputes) {
  InGroup(GetParam(), [&](RankGroup& group) {
    std::vector<at::Tensor> tensors;
    std::vector<std::unique_ptr<Collective::Pending>> calls;
    for (int i = 0; i < 5; ++i) {
      tensors.push_back(Values(1000 + i, group.rank(), at::kFloat));
      calls.push_back(group.tensors().StartAllReduce(tensors.back()));
    }
    for (size_t i = calls.size(); i-- > 0;) {
      calls[i]->Wait();
      EXPECT_TRUE(at::equal(tensors[i], SumOfAll(tensors[i].numel(), group.size(), at::kFloat)));
    }
  });
}

TEST(CollectiveOfTheLost, WaitingCallsEndWhenARankLeaves) {
  InGroup(3, [&](RankGroup& group) {
    if (group.rank() == 1) return;
    EXPECT_THROW(group.tensors().AllReduce(at::ones({1000})), PeerLost);
  });
}

// ---- Words

TEST_P(OnEveryNumberOfRanks, WordsAndTensorsReachEveryRank) {
  InGroup(GetParam(), [&](RankGroup& group) {
    const int n = group.size();
    EXPECT_EQ(group.Sum({1.0, static_cast<double>(group.rank())}), (std::vector<double>{1.0 * n, n * (n - 1) / 2.0}));
    EXPECT_EQ(group.FromFirst(group.is_first() ? "mine" : "ignored"), "mine");
    EXPECT_EQ(group.FirstComputes([&] { return "by " + std::to_string(group.rank()); }), "by 0");
    const auto words = group.AtFirst("rank " + std::to_string(group.rank()));
    ASSERT_EQ(words.size(), group.is_first() ? static_cast<size_t>(n) : 0u);
    for (size_t r = 0; r < words.size(); ++r) EXPECT_EQ(words[r], "rank " + std::to_string(r));
    std::map<std::string, at::Tensor> tensors;
    if (group.is_first()) tensors = {{"a", at::arange(6).view({2, 3})}, {"b", at::full({}, 2.5)}};
    tensors = group.FromFirst(std::move(tensors));
    EXPECT_TRUE(at::equal(tensors.at("a"), at::arange(6).view({2, 3})));
    EXPECT_TRUE(at::equal(tensors.at("b"), at::full({}, 2.5)));
    const auto all =
        group.AtFirst(std::map<std::string, at::Tensor>{{"of " + std::to_string(group.rank()), at::ones({3})}});
    EXPECT_EQ(all.size(), group.is_first() ? static_cast<size_t>(n) : 0u);
  });
}

TEST_P(OnEveryNumberOfRanks, RowsAreDividedWithoutARest) {
  InGroup(GetParam(), [&](RankGroup& group) {
    for (int64_t batch : {4, 5, 127}) {
      const RankGroup::Rows rows = group.RowsOf(batch);
      EXPECT_EQ(group.Sum({static_cast<double>(rows.count)})[0], static_cast<double>(batch));
      EXPECT_GE(rows.count, batch / group.size());
    }
  });
}

TEST(RankGroupOfTheFailing, WhatRankZeroThrowsLeavesTheOthersAlone) {
  EXPECT_THROW(InGroup(2,
                       [&](RankGroup& group) {
                         if (group.is_first())
                           group.FirstComputes([]() -> std::string { throw std::runtime_error("no"); });
                         EXPECT_THROW(group.FirstComputes([] { return ""; }), PeerLost);
                       }),
               std::runtime_error);
}

// ---- Gradients

std::vector<at::Tensor> Parameters() {
  return {at::zeros({40, 30}), at::zeros({7}),       at::zeros({100, 5}),
          at::zeros({}),       at::zeros({3, 2, 2}), at::zeros({11})};
}

at::Tensor Gradient(size_t i, int rank) {
  const at::Tensor like = Parameters()[i];
  return Values(like.numel(), rank, at::kFloat).view(like.sizes()) + static_cast<double>(i);
}

TEST_P(OnEveryNumberOfRanks, GradientsAreSummedWhateverTheirOrder) {
  for (const bool sharded : {false, true})
    InGroup(GetParam(), [&](RankGroup& group) {
      GradientReducer::Options options{.first_bucket_bytes = 60, .bucket_bytes = 2500};
      if (sharded) options.owners = BalancedOwners(Parameters(), group.size());
      GradientReducer reducer(group.tensors(), Parameters(), options);
      EXPECT_GT(reducer.buckets(), 2u);
      for (int step = 0; step < 3; ++step) {
        const size_t n = Parameters().size();
        for (size_t k = 0; k < n; ++k) {  // each rank in an order of its own; tensor 1 has no gradient at all,
          const size_t i = step == 0 ? n - 1 - k : (k + static_cast<size_t>(group.rank())) % n;
          if (i == 1 || (i == 4 && group.rank() > 0)) continue;  // tensor 4 at rank 0 only
          reducer.Ready(i, Gradient(i, group.rank()));
        }
        const std::vector<at::Tensor> sums = reducer.Finish();
        for (size_t i = 0; i < n; ++i) {
          const bool mine = !sharded || options.owners[i] == group.rank();
          ASSERT_EQ(sums[i].defined(), mine && i != 1) << i;
          if (!sums[i].defined()) continue;
          at::Tensor expected = Gradient(i, 0);
          for (int rank = 1; rank < group.size() && i != 4; ++rank) expected = expected + Gradient(i, rank);
          EXPECT_TRUE(at::equal(sums[i], expected)) << i;
          EXPECT_EQ(sums[i].sizes(), Parameters()[i].sizes());
        }
      }
    });
}

// Of sharded gradients a rank holds its own part and the buckets that are on their way, never all.
TEST_P(OnEveryNumberOfRanks, ShardedGradientsAreLetGoOfWhileMoreCome) {
  constexpr size_t kTensors = 32;
  constexpr int64_t kSize = 1000;
  std::vector<at::Tensor> parameters;
  for (size_t i = 0; i < kTensors; ++i) parameters.push_back(at::zeros({kSize}));
  InGroup(GetParam(), [&](RankGroup& group) {
    for (const bool sharded : {false, true}) {
      GradientReducer::Options options{.first_bucket_bytes = 4 * kSize, .bucket_bytes = 4 * kSize};
      if (sharded) options.owners = BalancedOwners(parameters, group.size());
      GradientReducer reducer(group.tensors(), parameters, options);
      int64_t most = 0;
      for (size_t i = kTensors; i-- > 0;) {
        reducer.Ready(i, parameters[i]);
        most = std::max(most, reducer.held_bytes());
      }
      const int64_t all = 4 * kSize * static_cast<int64_t>(kTensors);
      if (!sharded)
        EXPECT_GE(most, all);
      else
        EXPECT_LE(most, all / group.size() + 5 * 4 * (kSize + 1));
      reducer.Finish();
    }
  });
}

TEST(BalancedOwners, GiveEveryRankAboutTheSame) {
  std::vector<at::Tensor> tensors;
  for (int64_t i = 1; i <= 100; ++i) tensors.push_back(at::empty({i * 37 % 101 + 1}));
  const auto owners = BalancedOwners(tensors, 4);
  std::vector<int64_t> load(4, 0);
  for (size_t i = 0; i < tensors.size(); ++i) load[static_cast<size_t>(owners[i])] += tensors[i].numel();
  EXPECT_LE(*std::ranges::max_element(load) - *std::ranges::min_element(load), 3);
}

// ---- Optimisers whose state is divided

std::vector<TrainedTensor> Trained() {
  std::vector<TrainedTensor> tensors;
  for (const auto& [name, sizes] : std::map<std::string, std::vector<int64_t>>{
           {"embedding", {130, 140}}, {"norm", {17}}, {"wi", {129, 150}}, {"stack", {2, 128, 128}}, {"bias", {5, 3}}})
    tensors.push_back({name, at::sin(at::arange(c10::multiply_integers(sizes), at::kFloat)).view(sizes).clone()});
  return tensors;
}

std::vector<at::Tensor> StepGradients(const std::vector<TrainedTensor>& tensors, int step) {
  std::vector<at::Tensor> gradients;
  for (const TrainedTensor& tensor : tensors)
    gradients.push_back(tensor.name == "bias" && step == 1 ? at::Tensor() : at::cos(tensor.value * (step + 2)));
  return gradients;
}

TEST_P(OnEveryNumberOfRanks, AShardedOptimizerIsTheWholeOneBitForBit) {
  for (const char* name : {"adafactor", "adamw"}) {
    const OptimizerOptions options{.name = name, .weight_decay = 0.1};
    auto expected = Trained();
    auto whole = MakeOptimizer(options, expected);
    ASSERT_TRUE(whole);
    for (int step = 0; step < 3; ++step) (*whole)->Step(StepGradients(expected, step), 0.01);
    auto state = (*whole)->State();
    for (auto& [key, tensor] : state) tensor = tensor.clone();  // the next step changes them
    (*whole)->Step(StepGradients(expected, 3), 0.01);
    InGroup(GetParam(), [&](RankGroup& group) {
      auto tensors = Trained();
      std::vector<at::Tensor> values;
      for (const TrainedTensor& tensor : tensors) values.push_back(tensor.value);
      const auto owners = BalancedOwners(values, group.size());
      auto optimizer = ShardedOptimizer::Make(options, tensors, owners, group);
      ASSERT_TRUE(optimizer);
      for (int step = 0; step < 3; ++step) (*optimizer)->Step(StepGradients(tensors, step), 0.01);
      const auto gathered = (*optimizer)->State();
      ASSERT_EQ(gathered.size(), group.is_first() ? state.size() : 0u);
      for (const auto& [key, tensor] : gathered) EXPECT_TRUE(at::equal(tensor, state.at(key))) << key;
      // Another one goes on from it.
      auto again = ShardedOptimizer::Make(options, tensors, owners, group);
      ASSERT_TRUE((*again)->LoadState(state));
      (*again)->Step(StepGradients(tensors, 3), 0.01);
      for (size_t i = 0; i < tensors.size(); ++i)
        EXPECT_TRUE(at::equal(tensors[i].value, expected[i].value)) << name << " " << tensors[i].name;
    });
  }
}

// Rank 0 has that state itself: the others send it little more than that they have nothing to send.
TEST_P(OnEveryNumberOfRanks, WhatEveryRankHasIsNotSent) {
  InGroup(GetParam(), [&](RankGroup& group) {
    const auto tensors = Trained();
    auto optimizer =
        ShardedOptimizer::Make({.name = "adamw"}, tensors, std::vector<int>(tensors.size(), kEveryRank), group);
    ASSERT_TRUE(optimizer);
    const int64_t before = group.tensors().bytes_sent();
    EXPECT_EQ((*optimizer)->State().size(), group.is_first() ? 3 * tensors.size() : 0u);
    EXPECT_LT(group.tensors().bytes_sent() - before, 100);
  });
}

}  // namespace
}  // namespace allometry::trainer
