#include "arch/switch.h"

#include <algorithm>
#include <string>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

// Blocks with experts are first, first + step, ... (from 0).
struct Placement {
  int64_t first = 3, step = 4;
};

Placement PlacementOf(const common::Json& options) {
  const std::string name = options.at("placement").get<std::string>();
  if (name == "huggingface") return {1, 4};
  if (name == "switch_base") return {1, 2};
  return {3, 4};
}

int64_t SparseLayers(const common::Json& options, int64_t layers) {
  const Placement placement = PlacementOf(options);
  return layers <= placement.first ? 0 : 1 + (layers - 1 - placement.first) / placement.step;
}

// Every expert computes all its slots, whether tokens fill them or not. Mesh TensorFlow brings tokens to slots and back
// by products with one-hot matrices; here they are copied.
void AddExperts(const Shape& shape, int64_t s, int64_t layers, Inventory* inventory) {
  const int64_t d = shape.d_model, f = shape.d_ff, slots = kSwitchExperts * std::min(SwitchCapacity(s), s);
  inventory->AddExpertMatrices(d, f, kSwitchExperts, 2 * layers);
  inventory->AddMatrix(kSwitchExperts, d, layers);
  inventory->AddVector(d, layers);
  inventory->AddProduct(layers * s, d, kSwitchExperts);
  inventory->AddProduct(2 * layers * slots, d, f);
  for (int way = 0; way < 2; ++way) inventory->AddLookup(layers * s, slots, d);
  inventory->AddActivations(layers * (3 * s * d + slots * (2 * d + f)));
  inventory->AddFloat32Activations(layers * s * (d + 2 * kSwitchExperts));
}

void AddFeedForwardLayers(const Shape& shape, const common::Json& options, int64_t s, int64_t layers,
                          Inventory* inventory) {
  const int64_t sparse = SparseLayers(options, layers);
  AddFeedForward(shape.d_model, shape.d_ff, 2, s, layers - sparse, false, inventory);
  AddExperts(shape, s, sparse, inventory);
}

class SwitchArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "switch"; }
  std::string_view paper() const override { return "Fedus et al. 2021, arXiv 2101.03961"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"placement",
         "choice",
         "every_4th",
         {"every_4th", "huggingface", "switch_base"},
         0,
         0,
         "which layers of a stack, from 1, have experts: every_4th 4, 8, ...; huggingface 2, 6, ...; switch_base 2, 4, "
         "..., as the public checkpoints"},
    };
    return specs;
  }
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override {
    ALLO_RETURN_IF_ERROR(InventoryArchitecture::CheckShape(shape, options));
    const int64_t needed = PlacementOf(options).first + 1,
                  layers = std::min(shape.encoder_layers, shape.decoder_layers);
    if (layers < needed)
      return common::InvalidArgument("switch: a stack of " + std::to_string(layers) +
                                     " layers has no experts with placement " +
                                     options.at("placement").get<std::string>() + "; both stacks need at least " +
                                     std::to_string(needed) + " layers");
    return common::Ok();
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddSelfAttention(shape, n.inputs, shape.encoder_layers, false, &inventory);
    AddFeedForwardLayers(shape, options, n.inputs, shape.encoder_layers, &inventory);
    AddSelfAttention(shape, n.targets, shape.decoder_layers, false, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForwardLayers(shape, options, n.targets, shape.decoder_layers, &inventory);
    AddRelativeBias(shape, &inventory);  // encoder
    AddRelativeBias(shape, &inventory);  // decoder
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

bool SwitchHasExperts(const common::Json& options, int64_t index) {
  const Placement placement = PlacementOf(options);
  return index >= placement.first && (index - placement.first) % placement.step == 0;
}

int64_t SwitchCapacity(int64_t length) {
  return std::max<int64_t>(4, 6 * length / (5 * kSwitchExperts));  // 1.2 = 6 / 5
}

const Architecture& Switch() {
  static const SwitchArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
