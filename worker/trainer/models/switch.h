#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "worker/trainer/layers/experts.h"
#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// Switch Transformer (Fedus et al. 2021, arXiv 2101.03961); options: placement. The weights are initialised from
// `seed`. `spec.lengths` set the experts' capacity.
std::shared_ptr<Model> MakeSwitch(const ModelSpec& spec, uint64_t seed);

// Divides the experts of all layers that have some among ranks (layers/experts.h); to be called before the parameters
// are used. Returns the names of the divided parameters, empty for a model without experts.
std::set<std::string> DivideExperts(Model& model, const ExpertRanks& ranks);

// The model keeps all experts of a layer in one tensor, Hugging Face each in its own:
// "P.experts.wi.weight" [e, f, d] here is "P.experts.expert_0.wi.weight" ... [f, d] there, and wo alike. All other
// names and shapes are equal. Both functions leave other tensors, and so other models' weights, as they are.
std::map<std::string, at::Tensor> SplitExperts(const std::map<std::string, at::Tensor>& weights);
// Throws std::invalid_argument if an expert between the first and the last is missing.
std::map<std::string, at::Tensor> StackExperts(const std::map<std::string, at::Tensor>& weights);

}  // namespace allometry::trainer
