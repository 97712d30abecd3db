#include "worker/trainer/engine/greedy.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace allometry::trainer {
namespace {

constexpr int64_t kStart = 0, kEnd = 1;

std::vector<std::vector<int64_t>> UpToEnd(const at::Tensor& ids_bt) {
  const at::Tensor ids = ids_bt.cpu().contiguous();
  std::vector<std::vector<int64_t>> rows;
  for (int64_t b = 0; b < ids.size(0); ++b) {
    const int64_t* row = ids.const_data_ptr<int64_t>() + b * ids.size(1);
    const int64_t* end = std::find(row, row + ids.size(1), kEnd);
    rows.emplace_back(row, end);
  }
  return rows;
}

}  // namespace

std::vector<std::vector<int64_t>> DecodeGreedily(Model& model, const at::Tensor& inputs_bs, int64_t max_tokens) {
  at::NoGradGuard no_grad;
  const at::Tensor encoded = model.Encode(inputs_bs);
  const std::unique_ptr<DecodeState> state = model.StartDecoding(encoded, inputs_bs);
  at::Tensor next = at::full({inputs_bs.size(0)}, kStart, inputs_bs.options());
  at::Tensor ended = at::zeros({inputs_bs.size(0)}, inputs_bs.options().dtype(at::kBool));
  std::vector<at::Tensor> chosen;
  for (int64_t t = 0; t < max_tokens; ++t) {
    next = model.DecodeNext(*state, next).argmax(1).masked_fill_(ended, kEnd);
    chosen.push_back(next);
    ended = ended.logical_or(next == kEnd);
    if (ended.all().item<bool>()) break;
  }
  if (chosen.empty()) return std::vector<std::vector<int64_t>>(static_cast<size_t>(inputs_bs.size(0)));
  return UpToEnd(at::stack(chosen, 1));
}

}  // namespace allometry::trainer
