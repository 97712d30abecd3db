#include "arch/lconv.h"

#include <string>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

constexpr int64_t kWidth = 9;

// Kernels of a layer: one per channel unless the option shares them.
int64_t Kernels(const Shape& shape, const common::Json& options) {
  const int64_t heads = options.at("heads").get<int64_t>();
  return heads == 0 ? shape.d_model : heads;
}

// Input GLU (d to 2d), depthwise convolution, pointwise d x d, output d x d.
void AddConvolutionLayers(const Shape& shape, int64_t kernels, int64_t s, int64_t layers, Inventory* inventory) {
  const int64_t d = shape.d_model;
  inventory->AddMatrix(d, 2 * d, layers);
  inventory->AddMatrix(kernels, kWidth, layers);
  inventory->AddMatrix(d, d, 2 * layers);
  inventory->AddVector(d, layers);
  inventory->AddProduct(layers * s, d, 4 * d);
  inventory->AddProduct(layers * s, d, kWidth);
  inventory->AddActivations(layers * s * 7 * d);
}

class LconvArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "lconv"; }
  std::string_view paper() const override { return "Wu et al. 2019, arXiv 1901.10430"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"heads",
         "integer",
         0,
         {},
         0,
         65536,
         "kernels of a layer, each shared by d_model / heads channels; 0 = one per channel"},
    };
    return specs;
  }
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override {
    ALLO_RETURN_IF_ERROR(InventoryArchitecture::CheckShape(shape, options));
    const int64_t kernels = Kernels(shape, options);
    if (shape.d_model % kernels != 0)
      return common::InvalidArgument("lconv: d_model " + std::to_string(shape.d_model) +
                                     " is not a multiple of heads " + std::to_string(kernels));
    return common::Ok();
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    const int64_t kernels = Kernels(shape, options);
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddConvolutionLayers(shape, kernels, n.inputs, shape.encoder_layers, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, shape.encoder_layers, false, &inventory);
    AddConvolutionLayers(shape, kernels, n.targets, shape.decoder_layers, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, shape.decoder_layers, false, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

const Architecture& Lconv() {
  static const LconvArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
