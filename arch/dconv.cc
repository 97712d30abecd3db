#include "arch/dconv.h"

#include <string>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

constexpr int64_t kWidth = 9;

// Input GLU (d to 2d), the kernels' maps (d to 9 kernels), depthwise convolution, pointwise d x d, output d x d.
void AddConvolutionLayers(const Shape& shape, int64_t kernels, int64_t s, int64_t layers, Inventory* inventory) {
  const int64_t d = shape.d_model;
  inventory->AddMatrix(d, 2 * d, layers);
  inventory->AddMatrix(kWidth * kernels, d, layers);
  inventory->AddMatrix(d, d, 2 * layers);
  inventory->AddVector(d, layers);
  inventory->AddProduct(layers * s, d, 4 * d + kWidth * kernels);
  inventory->AddProduct(layers * s, d, kWidth);
  // norm's input and output, the halves, the gated values and their padded copy, both results; the kernels
  inventory->AddActivations(layers * s * (8 * d + kWidth * kernels));
}

class DconvArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "dconv"; }
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
         "kernels of a position, each shared by d_model / heads channels; 0 = one per channel"},
    };
    return specs;
  }
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override {
    ALLO_RETURN_IF_ERROR(InventoryArchitecture::CheckShape(shape, options));
    const int64_t kernels = DconvKernels(shape, options);
    if (shape.d_model % kernels != 0)
      return common::InvalidArgument("dconv: d_model " + std::to_string(shape.d_model) +
                                     " is not a multiple of heads " + std::to_string(kernels));
    return common::Ok();
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    const int64_t kernels = DconvKernels(shape, options), d_ff = DconvFeedForward(shape);
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddConvolutionLayers(shape, kernels, n.inputs, shape.encoder_layers, &inventory);
    AddFeedForward(shape.d_model, d_ff, 2, n.inputs, shape.encoder_layers, false, &inventory);
    AddConvolutionLayers(shape, kernels, n.targets, shape.decoder_layers, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, d_ff, 2, n.targets, shape.decoder_layers, false, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

int64_t DconvKernels(const Shape& shape, const common::Json& options) {
  const int64_t heads = options.at("heads").get<int64_t>();
  return heads == 0 ? shape.d_model : heads;
}

int64_t DconvFeedForward(const Shape& shape) { return RoundToMultipleOf8(static_cast<double>(shape.d_ff) / 6.0); }

const Architecture& Dconv() {
  static const DconvArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
