#include "worker/trainer/engine/training_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "worker/trainer/engine/device.h"
#include "worker/trainer/layers/row_random.h"

namespace allometry::trainer {

TrainingStep::TrainingStep(const Parts& parts)
    : parts_(parts), micro_batch_(parts.micro_batch), on_device_(parts.optimizer.UsesKernels()) {
  const auto numbers = at::TensorOptions(parts.device);
  const at::ScalarType type = parts.state.masters().at(0).value.scalar_type();
  targets_ = at::ones({}, numbers.dtype(type));
  if (!on_device_) return;
  device_key_ = at::zeros({1}, numbers.dtype(at::kLong));
  parts_.optimizer.MeasureNorm(parts.config.optimization.clip_norm);
  parts_.optimizer.SetCopies(parts.state.Copies());
  if (!parts.graphs) return;
  graphs_.emplace(parts.graphs, StepGraphs::Step{[this](const DeviceBatch& batch) {
                                                   return Compute(batch, /*wants_norm=*/true, {[] {}, [] {}});
                                                 },
                                                 [this] { BeginCapture(); }, [this] { return EndCapture(); },
                                                 [this] { parts_.state.AbandonStep(); },
                                                 [this](bool failed) { return FailedOnAnyRank(failed); },
                                                 [this] { updating_ = true; }});
}

void TrainingStep::BeginCapture() {
  parts_.optimizer.BeginCapture();
  if (parts_.group) parts_.group->tensors().BeginCapture();
}

bool TrainingStep::FailedOnAnyRank(bool failed) const { return parts_.group ? !parts_.group->All(!failed) : failed; }

at::Tensor TrainingStep::EndCapture() {
  if (parts_.group) parts_.group->tensors().EndCapture();
  return parts_.optimizer.EndCapture();
}

void TrainingStep::SetNumbers(int64_t step, const DeviceBatch& batch) {
  step_ = step;
  if (on_device_) device_key_.fill_(StepKey(parts_.config.seed, step));
  targets_.fill_(std::max<int64_t>(batch.target_tokens, 1));
  parts_.optimizer.SetRate(parts_.config.optimization.schedule.RateAt(step));
}

// A step that memory does not hold is taken again with half the micro-batch, which draws and adds up the same. Ranks
// cannot: what one of them has sent is sent, so the attempt ends and the next one has half.
StepResult TrainingStep::Take(int64_t step, const DeviceBatch& batch, bool wants_norm, const Moments& moments) {
  parts_.state.model().BeginStep(step);
  SetNumbers(step, batch);
  for (;;) {
    updating_ = false;
    try {
      return TakeOnce(batch, wants_norm, moments);
    } catch (const c10::Error& e) {
      if (!IsOutOfMemory(e) || updating_ || parts_.group || !NeedLess()) throw;
    }
    parts_.state.AbandonStep();
    if (graphs_) graphs_->Clear();
    EmptyDeviceCache(parts_.device);
  }
}

StepResult TrainingStep::TakeOnce(const DeviceBatch& batch, bool wants_norm, const Moments& moments) {
  if (!graphs_) return Compute(batch, wants_norm, moments);
  moments.hold();
  const int64_t before = graphs_->launches();
  StepResult result = graphs_->Take(batch);
  if (parts_.group && graphs_->launches() > before) parts_.group->tensors().Launched();
  updating_ = true;  // what follows is not the step's
  moments.given();
  return result;
}

// Half the micro-batch, and with one row activation checkpointing; false when there is nothing left.
bool TrainingStep::NeedLess() {
  Model& model = parts_.state.model();
  if (micro_batch_ > 1) {
    micro_batch_ = (micro_batch_ + 1) / 2;
    std::fprintf(stderr, "out of memory at step %lld: micro-batch halved to %lld sequences\n",
                 static_cast<long long>(step_), static_cast<long long>(micro_batch_));
    return true;
  }
  if (model.recompute() || !parts_.may_recompute) return false;
  model.set_recompute(true);
  std::fprintf(stderr, "out of memory at step %lld with one sequence: activation checkpointing from here on\n",
               static_cast<long long>(step_));
  return true;
}

StepResult TrainingStep::Compute(const DeviceBatch& batch, bool wants_norm, const Moments& moments) {
  updating_ = false;
  StepResult result = Accumulate(batch);
  moments.given();
  result.gradient_norm = Update(wants_norm, moments);
  return result;
}

// Each micro-batch's loss is divided by the global batch's number of unpadded targets, and its auxiliary terms by the
// number of sequences, so that their gradients add up to those of the global means.
StepResult TrainingStep::Accumulate(const DeviceBatch& batch) {
  const double sequences = static_cast<double>(batch.rows);
  StepResult result;
  SideTerms side;
  const RankGroup::Rows own = batch.own;
  for (int64_t row = 0; row < own.count; row += micro_batch_) {
    const int64_t count = std::min(micro_batch_, own.count - row);
    if (row + count == own.count) parts_.state.BeginLastPass();
    BeginPass(own.first + row, count);
    Loss loss = parts_.state.model().ComputeLoss(
        {batch.inputs_bs.narrow(0, row, count), batch.targets_bt.narrow(0, row, count)});
    const at::Tensor share = loss.nll_sum / targets_;
    at::Tensor total = loss.objective_sum.defined() ? loss.objective_sum / targets_ : share;
    if (const at::Tensor& auxiliary = loss.side.auxiliary; auxiliary.defined()) {
      total = total + auxiliary / sequences;
      loss.side.AddMean("auxiliary_loss", auxiliary.detach(), at::full_like(auxiliary.detach(), count));
    }
    total.backward();
    for (const auto& [name, mean] : loss.side.means) side.AddMean(name, mean.sum, mean.count);
    parts_.state.CollectGradients();
    result.loss = result.loss.defined() ? result.loss + share.detach() : share.detach();
  }
  result.means = std::move(side.means);
  return result;
}

void TrainingStep::BeginPass(int64_t first_row, int64_t rows) const {
  if (on_device_)
    BeginRows(device_key_, first_row, rows);
  else
    BeginRows(parts_.config.seed, step_, first_row, rows);
}

at::Tensor TrainingStep::Update(bool wants_norm, const Moments& moments) {
  const std::vector<at::Tensor> gradients = parts_.state.Gradients();
  const at::Tensor norm = on_device_ ? at::Tensor() : ClipByHost(gradients, wants_norm);
  moments.hold();
  updating_ = true;
  parts_.optimizer.Step(gradients);
  parts_.state.ClearGradients();
  if (on_device_) return parts_.optimizer.norm();
  parts_.state.PublishWeights();
  return norm;
}

at::Tensor TrainingStep::ClipByHost(const std::vector<at::Tensor>& gradients, bool wants_norm) const {
  const double clip = parts_.config.optimization.clip_norm;
  if (clip == 0 && !wants_norm) return {};
  const double norm = GradientNormOfAll(gradients);
  if (clip > 0 && norm > clip) ScaleGradients(gradients, clip / norm);
  return at::full({}, norm, at::kDouble);
}

// Sums of squares that every rank has count once, the others on each rank.
double TrainingStep::GradientNormOfAll(const std::vector<at::Tensor>& gradients) const {
  std::vector<at::Tensor> everywhere, own;
  for (size_t i = 0; i < gradients.size(); ++i)
    (parts_.sharded || parts_.state.IsDivided(i) ? own : everywhere).push_back(gradients[i]);
  const double shared = GradientNorm(everywhere);
  if (own.empty()) return shared;
  const double norm = GradientNorm(own);
  return std::sqrt(shared * shared + parts_.group->Sum({norm * norm})[0]);
}

}  // namespace allometry::trainer
