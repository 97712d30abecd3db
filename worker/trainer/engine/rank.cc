#include "worker/trainer/engine/rank.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace allometry::trainer {
namespace {

constexpr size_t kRows = 64;  // candidates at once: logits are the largest thing here

at::Tensor PaddedTokens(std::span<const Candidate> candidates) {
  size_t width = 0;
  for (const Candidate& candidate : candidates) width = std::max(width, candidate.tokens.size());
  at::Tensor ids = at::zeros({static_cast<int64_t>(candidates.size()), static_cast<int64_t>(width)}, at::kLong);
  int64_t* row = ids.mutable_data_ptr<int64_t>();
  for (const Candidate& candidate : candidates) {
    std::copy(candidate.tokens.begin(), candidate.tokens.end(), row);
    row += width;
  }
  return ids;
}

at::Tensor Weigh(Model& model, const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                 std::span<const Candidate> candidates) {
  std::vector<int64_t> rows;
  for (const Candidate& candidate : candidates) rows.push_back(candidate.row);
  const at::Tensor row = at::tensor(rows, at::kLong).to(inputs_bs.device());
  const at::Tensor targets = PaddedTokens(candidates).to(inputs_bs.device());
  const at::Tensor logits =
      model.Decode(encoded_bsd.index_select(0, row), inputs_bs.index_select(0, row), ShiftRight(targets));
  const auto type = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor each = at::log_softmax(logits.to(type), -1).gather(2, targets.unsqueeze(2)).squeeze(2);
  return each.masked_fill(targets == 0, 0).sum(1).to(at::kCPU, at::kDouble).contiguous();
}

}  // namespace

std::vector<double> LogLikelihoods(Model& model, const at::Tensor& inputs_bs, std::span<const Candidate> candidates) {
  at::NoGradGuard no_grad;
  const at::Tensor encoded = model.Encode(inputs_bs);
  std::vector<double> all;
  for (size_t first = 0; first < candidates.size(); first += kRows) {
    const at::Tensor part =
        Weigh(model, encoded, inputs_bs, candidates.subspan(first, std::min(kRows, candidates.size() - first)));
    all.insert(all.end(), part.const_data_ptr<double>(), part.const_data_ptr<double>() + part.numel());
  }
  return all;
}

}  // namespace allometry::trainer
