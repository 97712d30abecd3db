#include "arch/albert.h"

#include <algorithm>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

constexpr int64_t kDefaultFactor = -1;  // min(128, d_model / 2)

// Embedding V x e with its projection e x d; the head goes back the same way unless the output has a table of its own.
void AddFactorisedEmbedding(const Shape& shape, int64_t factor, bool untied, Inventory* inventory) {
  const Lengths n = inventory->lengths();
  const int64_t d = shape.d_model, v = shape.vocabulary;
  inventory->AddEmbedding(v, factor);
  inventory->AddEmbedding(factor, d);
  inventory->AddLookup(n.inputs + n.targets, v, factor);
  inventory->AddProduct(n.inputs + n.targets, factor, d);
  inventory->AddActivations((n.inputs + n.targets) * (factor + d));
  inventory->AddFloat32Activations(n.targets * v);
  if (untied) {
    inventory->AddEmbedding(v, d);
    inventory->AddHead(n.targets, d, v);
  } else {
    inventory->AddHead(n.targets, d, factor);
    inventory->AddHead(n.targets, factor, v);
  }
}

class AlbertArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "albert"; }
  std::string_view paper() const override { return "Lan et al. 2019, arXiv 1909.11942"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"factor",
         "integer",
         kDefaultFactor,
         {},
         -1,
         65536,
         "width of the factorised embedding; -1 = min(128, d_model / 2), 0 = not factorised"},
        {"untied_softmax", "boolean", false, {}, 0, 0, "a full-width output embedding (Narang et al. 2021)"},
    };
    return specs;
  }
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override {
    ALLO_RETURN_IF_ERROR(InventoryArchitecture::CheckShape(shape, options));
    if (options.at("factor").get<int64_t>() == kDefaultFactor && shape.d_model < 2)
      return common::InvalidArgument(
          "albert: d_model is 1, and the embedding's factor needs at least 2 (or factor: 0)");
    return common::Ok();
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    Inventory inventory(n);
    const int64_t factor = AlbertFactor(shape, options);
    const bool untied = options.at("untied_softmax").get<bool>();
    if (factor > 0)
      AddFactorisedEmbedding(shape, factor, untied, &inventory);
    else if (untied)
      AddUntiedEmbedding(shape, &inventory);
    else
      AddTiedEmbedding(shape, &inventory);
    AddSelfAttention(shape, n.inputs, shape.encoder_layers, true, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, shape.encoder_layers, true, &inventory);
    AddSelfAttention(shape, n.targets, shape.decoder_layers, true, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, true, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, shape.decoder_layers, true, &inventory);
    AddRelativeBias(shape, &inventory);
    AddRelativeBias(shape, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

int64_t AlbertFactor(const Shape& shape, const common::Json& options) {
  const int64_t factor = options.at("factor").get<int64_t>();
  return factor == kDefaultFactor ? std::min<int64_t>(128, shape.d_model / 2) : factor;
}

const Architecture& Albert() {
  static const AlbertArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
