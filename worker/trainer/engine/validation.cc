#include "worker/trainer/engine/validation.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/trainer/engine/stop_signal.h"

namespace allometry::trainer {
namespace {

void AddBatch(const ValidationSet& set, const at::Tensor& targets_bt, const at::Tensor& nll_bt, ValidationSums& sums) {
  const at::Tensor targets = targets_bt.contiguous();
  const at::Tensor nll = nll_bt.to(at::kCPU, at::kFloat).contiguous();
  const int64_t* ids = targets.const_data_ptr<int64_t>();
  const float* values = nll.const_data_ptr<float>();
  for (int64_t i = 0; i < targets.numel(); ++i) {
    if (ids[i] == 0) continue;
    const auto id = static_cast<size_t>(ids[i]);
    sums.nll += values[i];
    ++sums.tokens;
    if (id >= set.is_text.size() || !set.is_text[id]) continue;
    sums.text_nll += values[i];
    sums.unigram_nll += set.unigram_nll[id];
    ++sums.text_tokens;
  }
}

}  // namespace

std::optional<ValidationSums> Validate(ModelState& state, const at::Device& device, const ValidationSet& set,
                                       ValidationInputs inputs) {
  at::NoGradGuard no_grad;
  ValidationSums sums;
  for (int64_t first = 0; first < set.examples; first += set.batch_rows) {
    if (StopRequested()) return std::nullopt;
    const HostBatch batch = set.batch(first, std::min(set.batch_rows, set.examples - first));
    const at::Tensor inputs_bs =
        inputs == ValidationInputs::kOwn ? batch.inputs_bs : at::roll(batch.inputs_bs, /*shifts=*/1, /*dims=*/0);
    for (int64_t row = 0; row < inputs_bs.size(0); row += set.pass_rows) {
      const auto pass = [&](const at::Tensor& rows) {
        return rows.slice(0, row, std::min(row + set.pass_rows, rows.size(0)));
      };
      const at::Tensor targets_bt = pass(batch.targets_bt);
      AddBatch(set, targets_bt, state.model().TokenNll({pass(inputs_bs).to(device), targets_bt.to(device)}), sums);
    }
  }
  return sums;
}

}  // namespace allometry::trainer
