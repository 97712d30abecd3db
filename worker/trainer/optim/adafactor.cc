#include "worker/trainer/optim/adafactor.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "worker/trainer/optim/fused_loops.h"

namespace allometry::trainer {
namespace {

bool IsFactored(const at::Tensor& value, int64_t from) {
  return value.dim() >= 2 && value.size(-1) >= from && value.size(-2) >= from;
}

// 1 / sqrt of a mean: the factor by which a row or a column scales its gradients.
void InverseRoots(const float* means, float* factors, int64_t n, double divisor) {
  for (int64_t i = 0; i < n; ++i) factors[i] = static_cast<float>(1.0 / std::sqrt(means[i] / divisor));
}

// One matrix of a factored tensor: moves its means on and leaves the factors of its update.
struct FactoredMatrix {
  const float* gradient;
  float* row_means;
  float* column_means;
  int64_t rows, columns;
  std::vector<float> row_factors{}, column_factors{};

  void UpdateMeans(float decay, float epsilon) {
    std::vector<float> sums(static_cast<size_t>(columns), 0.0f);
    for (int64_t i = 0; i < rows; ++i) {
      const double sum = loops::AddSquares(gradient + i * columns, sums.data(), columns, epsilon);
      row_means[i] = decay * row_means[i] + (1.0f - decay) * static_cast<float>(sum / static_cast<double>(columns));
    }
    const float scale = (1.0f - decay) / static_cast<float>(rows);
    for (int64_t j = 0; j < columns; ++j)
      column_means[j] = decay * column_means[j] + scale * sums[static_cast<size_t>(j)];
  }

  // Returns the sum of squares of the update before clipping.
  double ComputeFactors() {
    double mean = 0;
    for (int64_t i = 0; i < rows; ++i) mean += row_means[i];
    row_factors.resize(static_cast<size_t>(rows));
    column_factors.resize(static_cast<size_t>(columns));
    InverseRoots(row_means, row_factors.data(), rows, mean / static_cast<double>(rows));
    InverseRoots(column_means, column_factors.data(), columns, 1.0);
    double total = 0;
    for (int64_t i = 0; i < rows; ++i)
      total += loops::SumOfScaledSquares(gradient + i * columns, column_factors.data(), columns,
                                         row_factors[static_cast<size_t>(i)]);
    return total;
  }

  void Apply(float* value, float keep, float step) const {
    for (int64_t i = 0; i < rows; ++i)
      loops::ApplyFactoredUpdate(value + i * columns, gradient + i * columns, column_factors.data(), columns, keep,
                                 step * row_factors[static_cast<size_t>(i)]);
  }
};

double RootMeanSquare(double sum_of_squares, int64_t n) {
  return std::sqrt(sum_of_squares / static_cast<double>(std::max<int64_t>(n, 1)));
}

}  // namespace

Adafactor::Adafactor(const OptimizerOptions& options, std::vector<TrainedTensor> tensors) : options_(options) {
  for (TrainedTensor& tensor : tensors) {
    Slot slot{.tensor = std::move(tensor)};
    const at::Tensor& value = slot.tensor.value;
    slot.factored = IsFactored(value, options.factored_from);
    if (slot.factored) {
      slot.rows = value.size(-2);
      slot.columns = value.size(-1);
      slot.matrices = value.numel() / (slot.rows * slot.columns);
      slot.row_means = at::zeros({slot.matrices, slot.rows}, value.options());
      slot.column_means = at::zeros({slot.matrices, slot.columns}, value.options());
    } else {
      slot.second_moment = at::zeros_like(value);
    }
    slots_.push_back(std::move(slot));
  }
  steps_ = at::zeros({}, at::kLong);
  TakeKernels(KernelSlots());
  if (UsesKernels()) steps_ = steps_.to(slots_[0].tensor.value.device());
}

std::vector<DeviceStep::Slot> Adafactor::KernelSlots() const {
  std::vector<DeviceStep::Slot> slots;
  for (const Slot& slot : slots_) {
    const int64_t columns = slot.factored ? slot.columns : slot.tensor.value.numel();
    slots.push_back({.value = slot.tensor.value,
                     .second_moment = slot.second_moment,
                     .row_means = slot.row_means,
                     .column_means = slot.column_means,
                     .shape = {slot.matrices, slot.rows, columns, slot.factored, slot.tensor.parts}});
  }
  return slots;
}

void Adafactor::Step(const std::vector<at::Tensor>& gradients) {
  at::NoGradGuard no_grad;
  steps_.add_(1);
  if (UsesKernels()) return StepWithKernels(gradients);
  const double decay = 1.0 - std::pow(steps_.item<double>(), -options_.decay_exponent);
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!gradients[i].defined() || gradients[i].numel() == 0) continue;
    if (gradients[i].is_cpu() && gradients[i].scalar_type() == at::kFloat && !IsDivided(slots_[i]) &&
        !tensor_operations_)
      StepWithLoops(slots_[i], gradients[i], decay);
    else
      StepWithTensors(slots_[i], gradients[i], decay);
  }
}

void Adafactor::StepWithKernels(const std::vector<at::Tensor>& gradients) {
  DeviceStep& step = device();
  step.Take(gradients);
  const kernels::AdafactorArgs args{.work = step.work(),
                                    .step = steps_.const_data_ptr<int64_t>(),
                                    .rate = step.rate(),
                                    .factor = step.factor(),
                                    .decay_exponent = static_cast<float>(options_.decay_exponent),
                                    .clip_threshold = static_cast<float>(options_.clip_threshold),
                                    .epsilon_gradient = static_cast<float>(options_.epsilon_gradient),
                                    .epsilon_scale = static_cast<float>(options_.epsilon_scale),
                                    .weight_decay = static_cast<float>(options_.weight_decay)};
  const at::Tensor& value = slots_[0].tensor.value;
  kernels::Run(step.table(), step.table().adafactor_measure, value, args);
  AddUpParts(step.totals());
  kernels::Run(step.table(), step.table().adafactor_apply, value, args);
}

// One exchange for all that is divided, and of that alone: what else a rank has in its slots differs.
void Adafactor::AddUpParts(const at::Tensor& totals) {
  std::vector<at::Tensor> divided;
  for (size_t i = 0; i < slots_.size(); ++i)
    if (IsDivided(slots_[i])) divided.push_back(totals.select(0, static_cast<int64_t>(i)));
  if (divided.empty()) return;
  const at::Tensor sums = at::stack(divided);
  std::ranges::find_if(slots_, IsDivided)->tensor.sum_over_parts(sums);
  at::_foreach_copy_(divided, sums.unbind());
}

void Adafactor::StepWithLoops(Slot& slot, const at::Tensor& gradient, double decay) {
  float* value = slot.tensor.value.mutable_data_ptr<float>();
  const float* g = gradient.const_data_ptr<float>();
  const int64_t n = gradient.numel();
  const float b = static_cast<float>(decay), epsilon = static_cast<float>(options_.epsilon_gradient);
  const double step_size = rate_ * std::max(options_.epsilon_scale, RootMeanSquare(loops::SumOfSquares(value, n), n));
  const float keep = static_cast<float>(1.0 - step_size * options_.weight_decay);
  auto clipped = [&](double sum) {
    return step_size / std::max(1.0, RootMeanSquare(sum, n) / options_.clip_threshold);
  };
  if (!slot.factored) {
    float* v = slot.second_moment.mutable_data_ptr<float>();
    const double sum = loops::UpdateSecondMoment(v, g, n, b, epsilon);
    loops::ApplyUpdate(value, g, v, n, keep, static_cast<float>(clipped(sum)));
    return;
  }
  std::vector<FactoredMatrix> matrices;
  double sum = 0;
  for (int64_t m = 0; m < slot.matrices; ++m) {
    matrices.push_back({g + m * slot.rows * slot.columns, slot.row_means.mutable_data_ptr<float>() + m * slot.rows,
                        slot.column_means.mutable_data_ptr<float>() + m * slot.columns, slot.rows, slot.columns});
    matrices.back().UpdateMeans(b, epsilon);
    sum += matrices.back().ComputeFactors();
  }
  const float step = static_cast<float>(clipped(sum));
  for (int64_t m = 0; m < slot.matrices; ++m)
    matrices[static_cast<size_t>(m)].Apply(value + m * slot.rows * slot.columns, keep, step);
}

// No value leaves the device: everything that depends on data stays a tensor.
void Adafactor::StepWithTensors(Slot& slot, const at::Tensor& gradient, double decay) {
  at::Tensor& value = slot.tensor.value;
  const at::Tensor squares = at::square(gradient).add_(options_.epsilon_gradient);
  at::Tensor update;
  if (slot.factored) {
    const at::Tensor stack = squares.view({slot.matrices, slot.rows, slot.columns});
    slot.row_means.lerp_(stack.mean(2), 1.0 - decay);
    slot.column_means.lerp_(stack.mean(1), 1.0 - decay);
    const at::Tensor row_factors = (slot.row_means / slot.row_means.mean(1, true)).rsqrt_().unsqueeze(2);
    const at::Tensor column_factors = slot.column_means.rsqrt().unsqueeze(1);
    update = (gradient.view_as(stack) * row_factors).mul_(column_factors).view_as(value);
  } else {
    slot.second_moment.lerp_(squares, 1.0 - decay);
    update = gradient * slot.second_moment.rsqrt();
  }
  at::Tensor means = at::stack({at::square(update).mean(), at::square(value).mean()});
  if (IsDivided(slot)) {
    slot.tensor.sum_over_parts(means);
    means.div_(static_cast<double>(slot.tensor.parts));
  }
  means.sqrt_();
  const at::Tensor excess = means[0].div(options_.clip_threshold).clamp_min_(1.0);
  const at::Tensor step_size = means[1].clamp_min(options_.epsilon_scale).mul_(rate_);
  if (options_.weight_decay != 0) value.mul_(1.0 - step_size * options_.weight_decay);
  value.sub_(update.mul_(step_size / excess));
}

std::map<std::string, at::Tensor> Adafactor::State() const {
  std::map<std::string, at::Tensor> state;
  state["steps"] = steps_.clone();  // a GPU's checkpoint is read while the next step counts on
  for (const Slot& slot : slots_) {
    if (slot.factored) {
      state[slot.tensor.name + ".row_means"] = slot.row_means;
      state[slot.tensor.name + ".column_means"] = slot.column_means;
    } else {
      state[slot.tensor.name + ".second_moment"] = slot.second_moment;
    }
  }
  return state;
}

common::Status Adafactor::LoadState(const std::map<std::string, at::Tensor>& state) {
  at::NoGradGuard no_grad;
  ALLO_RETURN_IF_ERROR(LoadTensor(state, "steps", steps_));
  for (Slot& slot : slots_) {
    if (slot.factored) {
      ALLO_RETURN_IF_ERROR(LoadTensor(state, slot.tensor.name + ".row_means", slot.row_means));
      ALLO_RETURN_IF_ERROR(LoadTensor(state, slot.tensor.name + ".column_means", slot.column_means));
    } else {
      ALLO_RETURN_IF_ERROR(LoadTensor(state, slot.tensor.name + ".second_moment", slot.second_moment));
    }
  }
  return common::Ok();
}

}  // namespace allometry::trainer
