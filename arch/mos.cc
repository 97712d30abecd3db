#include "arch/mos.h"

#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

// K vectors and K weights of each target, and K projections to the vocabulary.
void AddMixture(const Shape& shape, int64_t softmaxes, Inventory* inventory) {
  const int64_t d = shape.d_model, t = inventory->lengths().targets;
  inventory->AddMatrix(softmaxes * d, d);
  inventory->AddMatrix(softmaxes, d);
  inventory->AddProduct(t, d, softmaxes * (d + 1));
  inventory->AddHead((softmaxes - 1) * t, d, shape.vocabulary);  // the embedding counts the first
  // The vectors, scaled and not, and their gradient. No more logits than one softmax has are held at once.
  inventory->AddActivations(3 * t * softmaxes * d);
  inventory->AddFloat32Sums(shape.vocabulary * d);
}

class MosArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "mos"; }
  std::string_view paper() const override { return "Yang et al. 2018, arXiv 1711.03953"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"softmaxes", "integer", 15, {}, 1, 1024, "softmaxes that are mixed"},
    };
    return specs;
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddMixture(shape, options.at("softmaxes").get<int64_t>(), &inventory);
    AddSelfAttention(shape, n.inputs, shape.encoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, shape.encoder_layers, false, &inventory);
    AddSelfAttention(shape, n.targets, shape.decoder_layers, false, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, shape.decoder_layers, false, &inventory);
    AddRelativeBias(shape, &inventory);
    AddRelativeBias(shape, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

const Architecture& Mos() {
  static const MosArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
