#include "arch/funnel.h"

#include <string>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

// The layer that halves the sequence. Pooled queries meet unpooled keys and values, or the attention runs over the
// whole length and its output is pooled.
void AddPoolingAttention(const Shape& shape, int64_t s, bool pool_query, Inventory* inventory) {
  if (!pool_query) return AddSelfAttention(shape, s, 1, false, inventory);
  const int64_t d = shape.d_model, inner = shape.heads * shape.d_kv, queries = s / 2;
  inventory->AddMatrix(d, inner, 4);
  inventory->AddVector(d);
  inventory->AddProduct(2 * queries + 2 * s, d, inner);
  inventory->AddProduct(2 * queries, s, inner);
  inventory->AddActivations(s * (2 * d + 2 * inner) + queries * (d + 2 * inner));
  inventory->AddFloat32Activations(2 * shape.heads * queries * s);  // scores and probabilities
}

void AddEncoder(const Shape& shape, bool pool_query, Inventory* inventory) {
  int64_t s = inventory->lengths().inputs;
  const auto layers = FunnelBlockLayers(shape.encoder_layers);
  for (size_t block = 0; block < layers.size(); ++block) {
    const int64_t pooling = block == 0 ? 0 : 1;
    if (pooling) {
      AddPoolingAttention(shape, s, pool_query, inventory);
      s /= 2;
    }
    AddSelfAttention(shape, s, layers[block] - pooling, false, inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, s, layers[block], false, inventory);
  }
}

class FunnelArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "funnel"; }
  std::string_view paper() const override { return "Dai et al. 2020, arXiv 2006.03236"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"pool",
         "choice",
         "query",
         {"query", "after_attention"},
         0,
         0,
         "what a pooling layer pools: its query and residual, or the attention's output with the residual"},
    };
    return specs;
  }
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override {
    ALLO_RETURN_IF_ERROR(InventoryArchitecture::CheckShape(shape, options));
    if (shape.encoder_layers < kFunnelBlocks)
      return common::InvalidArgument("funnel: encoder_layers is " + std::to_string(shape.encoder_layers) +
                                     ", and must be at least 3: each of the encoder's 3 blocks needs a layer; "
                                     "decoder_layers may be anything from 1");
    return common::Ok();
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    n.inputs = FunnelPaddedLength(n.inputs);
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddEncoder(shape, options.at("pool") == "query", &inventory);
    AddSelfAttention(shape, n.targets, shape.decoder_layers, false, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs / kFunnelMultiple, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, shape.decoder_layers, false, &inventory);
    AddRelativeBias(shape, &inventory);
    AddRelativeBias(shape, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

std::array<int64_t, kFunnelBlocks> FunnelBlockLayers(int64_t encoder_layers) {
  return {(encoder_layers + 2) / 3, (encoder_layers + 1) / 3, encoder_layers / 3};
}

int64_t FunnelPaddedLength(int64_t inputs) {
  return (inputs + kFunnelMultiple - 1) / kFunnelMultiple * kFunnelMultiple;
}

const Architecture& Funnel() {
  static const FunnelArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
