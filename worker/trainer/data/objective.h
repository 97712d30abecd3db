#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "arch/objective.h"
#include "common/result.h"
#include "worker/trainer/data/random.h"
#include "worker/trainer/data/token_ids.h"

namespace allometry::trainer {

// What pretraining asks of a model: how a piece of text becomes inputs and targets. Immutable and thread-safe.
class Objective {
 public:
  virtual ~Objective() = default;

  const arch::ObjectiveLengths& lengths() const { return lengths_; }

  // Makes an example of 2 to lengths().raw tokens: exactly lengths().inputs and .targets ids, each side ended by the
  // end mark and then padded. All draws come from `random`, so that equal arguments give equal examples.
  void Apply(std::span<const int32_t> raw, KeyedRandom random, std::span<int32_t> inputs,
             std::span<int32_t> targets) const;

  // Which targets are text that the inputs do not show: 1 in `marks`, else 0. `targets` and `random` as of one call of
  // Apply. These are the targets that text_loss and bits per byte are over.
  virtual void MarkText(std::span<const int32_t> targets, KeyedRandom random, std::span<uint8_t> marks) const;

  int32_t Sentinel(int64_t i) const { return static_cast<int32_t>(pieces_ + kSentinels - 1 - i); }
  // Whether an id is text: neither padding, end mark nor sentinel.
  bool IsText(int32_t id) const { return id > kEos && id < pieces_; }

 protected:
  Objective(const arch::ObjectiveLengths& lengths, int64_t pieces) : lengths_(lengths), pieces_(pieces) {}
  int64_t pieces() const { return pieces_; }

  struct Written {
    int64_t inputs, targets;  // ids, end marks included
  };
  virtual Written Write(std::span<const int32_t> raw, KeyedRandom random, int32_t* inputs, int32_t* targets) const = 0;

 private:
  arch::ObjectiveLengths lengths_;
  int64_t pieces_;
};

// `pieces`: size of the tokenizer, sentinels not counted; sentinel i is the id pieces + 99 - i. Errors are those of
// arch::CheckObjective.
common::Result<std::shared_ptr<const Objective>> MakeObjective(const arch::ObjectiveSettings& settings, int64_t pieces);

}  // namespace allometry::trainer
