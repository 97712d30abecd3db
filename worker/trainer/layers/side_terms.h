#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace allometry::trainer {

// A mean as its two sums, so that layers, micro-batches and steps add up exactly. Scalars without gradient.
struct MeanSums {
  at::Tensor sum, count;
};

// What layers have to say of one pass beside their output.
struct SideTerms {
  at::Tensor auxiliary;                   // scalar of the sum type, summed over sequences, with gradient: what training
                                          // adds to the loss, averaged over the global batch; undefined if nothing
  std::map<std::string, MeanSums> means;  // become the metrics train/<name>

  void AddAuxiliary(const at::Tensor& sum) { auxiliary = auxiliary.defined() ? auxiliary + sum : sum; }
  void AddMean(const std::string& name, const at::Tensor& sum, const at::Tensor& count) {
    MeanSums& mean = means[name];
    mean.sum = mean.sum.defined() ? mean.sum + sum : sum;
    mean.count = mean.count.defined() ? mean.count + count : count;
  }
};

}  // namespace allometry::trainer
