#include "arch/transformer.h"

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

class TransformerArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "transformer"; }
  std::string_view paper() const override { return "Raffel et al. 2020, arXiv 1910.10683"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override { return {}; }

 protected:
  Inventory Take(const Shape& shape, const common::Json&, Lengths n) const override {
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddSelfAttention(shape, n.inputs, shape.encoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, shape.encoder_layers, false, &inventory);
    AddSelfAttention(shape, n.targets, shape.decoder_layers, false, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, shape.decoder_layers, false, &inventory);
    AddRelativeBias(shape, &inventory);  // encoder
    AddRelativeBias(shape, &inventory);  // decoder
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

const Architecture& Transformer() {
  static const TransformerArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
