#include "worker/trainer/engine/validation.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/stop_signal.h"

namespace allometry::trainer {
namespace {

// `first_row`: where `targets_bt` begins within `rows`.
void AddPass(const ValidationSet& set, const ValidationRows& rows, int64_t first_row, const at::Tensor& targets_bt,
             const at::Tensor& nll_bt, std::vector<ValidationSums>& parts) {
  const at::Tensor targets = targets_bt.contiguous();
  const at::Tensor nll = nll_bt.to(at::kCPU, at::kFloat).contiguous();
  const int64_t* ids = targets.const_data_ptr<int64_t>();
  const float* values = nll.const_data_ptr<float>();
  const int64_t width = targets.size(1);
  const uint8_t* is_text = rows.is_text.data() + first_row * width;
  for (int64_t i = 0; i < targets.numel(); ++i) {
    if (ids[i] == 0) continue;
    ValidationSums& sums = parts[rows.parts[static_cast<size_t>(first_row + i / width)]];
    sums.nll += values[i];
    ++sums.tokens;
    if (!is_text[i]) continue;
    const auto id = static_cast<size_t>(ids[i]);
    sums.text_nll += values[i];
    sums.unigram_nll += set.unigram_nll[id];
    sums.text_bytes += set.text_bytes[id];
    ++sums.text_tokens;
  }
}

// Negative log-likelihoods of rows [row, row + rows) of a batch, with half as many rows where memory does not hold
// them: what training needs may have grown since the number was chosen.
at::Tensor NllOfPass(ModelState& state, const at::Device& device, const at::Tensor& inputs_bs,
                     const at::Tensor& targets_bt, int64_t row, int64_t* rows) {
  for (;;) {
    try {
      return state.model().TokenNll(
          {inputs_bs.narrow(0, row, *rows).to(device), targets_bt.narrow(0, row, *rows).to(device)});
    } catch (const c10::Error& e) {
      if (!IsOutOfMemory(e) || *rows == 1) throw;
    }
    EmptyDeviceCache(device);
    *rows = (*rows + 1) / 2;
  }
}

// False if any rank was asked to stop. Counts are exact as doubles: there are fewer than 2^53.
bool AddUp(std::vector<ValidationSums>& parts, bool stopped, RankGroup& group) {
  std::vector<double> values{stopped ? 1.0 : 0.0};
  for (const ValidationSums& part : parts)
    values.insert(values.end(), {part.nll, part.text_nll, part.unigram_nll, static_cast<double>(part.tokens),
                                 static_cast<double>(part.text_tokens), static_cast<double>(part.text_bytes)});
  values = group.Sum(std::move(values));
  for (size_t p = 0; p < parts.size(); ++p) {
    const double* v = values.data() + 1 + 6 * p;
    parts[p] = {v[0], v[1], v[2], static_cast<int64_t>(v[3]), static_cast<int64_t>(v[4]), static_cast<int64_t>(v[5])};
  }
  return values[0] == 0;
}

}  // namespace

void ValidationSums::Add(const ValidationSums& other) {
  nll += other.nll;
  text_nll += other.text_nll;
  unigram_nll += other.unigram_nll;
  tokens += other.tokens;
  text_tokens += other.text_tokens;
  text_bytes += other.text_bytes;
}

std::optional<ValidationOutcome> Validate(ModelState& state, const at::Device& device, const ValidationSet& set,
                                          ValidationInputs inputs, RankGroup* group) {
  at::NoGradGuard no_grad;
  ValidationOutcome outcome{.parts = std::vector<ValidationSums>(set.parts)};
  const int64_t ranks = group ? group->size() : 1, rank = group ? group->rank() : 0;
  bool stopped = false;
  int64_t pass_rows = set.pass_rows;
  for (int64_t first = 0; first < set.examples; first += set.batch_rows) {
    if (first / set.batch_rows % ranks != rank) continue;
    stopped = StopRequested();
    if (stopped) break;
    const ValidationRows rows = set.batch(first, std::min(set.batch_rows, set.examples - first));
    const HostBatch& batch = rows.batch;
    const at::Tensor inputs_bs =
        inputs == ValidationInputs::kOwn ? batch.inputs_bs : at::roll(batch.inputs_bs, /*shifts=*/1, /*dims=*/0);
    for (int64_t row = 0; row < inputs_bs.size(0);) {
      int64_t pass = std::min(pass_rows, inputs_bs.size(0) - row);
      const int64_t asked = pass;
      const at::Tensor nll_bt = NllOfPass(state, device, inputs_bs, batch.targets_bt, row, &pass);
      if (pass < asked) pass_rows = pass;
      AddPass(set, rows, row, batch.targets_bt.narrow(0, row, pass), nll_bt, outcome.parts);
      row += pass;
    }
  }
  if (group) stopped = !AddUp(outcome.parts, stopped, *group);
  if (stopped) return std::nullopt;
  for (const ValidationSums& part : outcome.parts) outcome.all.Add(part);
  return outcome;
}

}  // namespace allometry::trainer
