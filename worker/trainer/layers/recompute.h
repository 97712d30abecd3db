#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace allometry::trainer {

// f(inputs) with its gradients, without keeping what lies between: the backward pass computes f a second time (Chen et
// al. 2016, arXiv 1604.06174). Both times f sees the same random numbers and takes the same path, so that values and
// gradients are bit-equal to f's own. (Where f uses a tensor several times that is used outside too, the sum of its
// gradients is taken in another order, which shows in the last bits.) f must not draw but from
// layers/row_random.h, and everything that f differentiates must be among `inputs` or `parameters`
// (leaves that f finds by itself). Without gradient mode this is f(inputs). Output tensors must all be defined.
using Recomputed = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;
std::vector<at::Tensor> Recompute(Recomputed f, const std::vector<at::Tensor>& inputs,
                                  const std::vector<at::Tensor>& parameters);

}  // namespace allometry::trainer
