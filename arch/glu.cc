#include "arch/glu.h"

#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

class GluArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "glu"; }
  std::string_view paper() const override { return "Shazeer 2020, arXiv 2002.05202"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"activation",
         "choice",
         "sigmoid",
         {"sigmoid", "gelu", "silu", "relu"},
         0,
         0,
         "the gate's activation: sigmoid is the GLU of Dauphin et al.; gelu in its tanh form"},
        {"tied_embedding",
         "boolean",
         true,
         {},
         0,
         0,
         "share input and output embedding; false with gelu is T5 v1.1 in form"},
    };
    return specs;
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    // Two thirds of d_ff keep three matrices at the cost of two.
    const int64_t d_ff = RoundToMultipleOf8(2.0 * static_cast<double>(shape.d_ff) / 3.0);
    Inventory inventory(n);
    options.at("tied_embedding").get<bool>() ? AddTiedEmbedding(shape, &inventory)
                                             : AddUntiedEmbedding(shape, &inventory);
    AddSelfAttention(shape, n.inputs, shape.encoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, d_ff, 3, n.inputs, shape.encoder_layers, false, &inventory);
    AddSelfAttention(shape, n.targets, shape.decoder_layers, false, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, d_ff, 3, n.targets, shape.decoder_layers, false, &inventory);
    AddRelativeBias(shape, &inventory);
    AddRelativeBias(shape, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

const Architecture& Glu() {
  static const GluArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
