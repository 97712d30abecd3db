#include "arch/evolved.h"

#include <algorithm>
#include <string>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

// Depthwise, then pointwise. Mesh TensorFlow counts the depthwise part, which it computes as one product a tap.
void AddSeparableConvolution(int64_t positions, int64_t width, int64_t from, int64_t to, int64_t layers,
                             Inventory* inventory) {
  inventory->AddMatrix(from, width, layers);
  inventory->AddMatrix(to, from, layers);
  inventory->AddProduct(layers * positions, from, width);
  inventory->AddProduct(layers * positions, from, to);
  inventory->AddActivations(layers * positions * (2 * from + to));
}

void AddGatedLinearUnits(int64_t d, int64_t s, int64_t layers, Inventory* inventory) {
  inventory->AddMatrix(2 * d, d, layers);
  inventory->AddVector(d, layers);
  inventory->AddProduct(layers * s, d, 2 * d);
  inventory->AddActivations(layers * s * 5 * d);
}

void AddEncoderConvolutions(int64_t d, int64_t s, int64_t layers, Inventory* inventory) {
  inventory->AddVector(d, layers);
  inventory->AddMatrix(4 * d, d, layers);
  inventory->AddProduct(layers * s, d, 4 * d);
  inventory->AddMatrix(d / 2, 3 * d, layers);
  inventory->AddDenseConvolution(layers * s, d * (d / 2), 3);
  inventory->AddVector(4 * d, layers);
  AddSeparableConvolution(s, 9, 4 * d, d / 2, layers, inventory);
  inventory->AddActivations(layers * s * 18 * d);  // norms, taps of the dense convolution, branches, their sum
}

void AddDecoderConvolutions(int64_t d, int64_t t, int64_t layers, Inventory* inventory) {
  inventory->AddVector(d, layers);
  AddSeparableConvolution(t, 11, d, 2 * d, layers, inventory);
  AddSeparableConvolution(t, 7, d, d / 2, layers, inventory);
  inventory->AddVector(2 * d, layers);
  AddSeparableConvolution(t, 7, 2 * d, d, layers, inventory);
  inventory->AddActivations(layers * t * 8 * d);
}

// Self-attention with more heads and cross-attention, both of the same normalised input.
void AddDualAttention(const Shape& shape, int64_t wide_heads, Lengths n, int64_t layers, Inventory* inventory) {
  Shape wide = shape;
  wide.heads = wide_heads;
  AddSelfAttention(wide, n.targets, layers, false, inventory);
  AddCrossAttention(shape, n.targets, n.inputs, layers, false, inventory);
  inventory->AddVector(shape.d_model, -layers);  // one norm, not two
}

void AddEncoder(const Shape& shape, Lengths n, Inventory* inventory) {
  const int64_t layers = shape.encoder_layers / 2;
  AddGatedLinearUnits(shape.d_model, n.inputs, layers, inventory);
  AddEncoderConvolutions(shape.d_model, n.inputs, layers, inventory);
  AddSelfAttention(shape, n.inputs, layers, false, inventory);
  AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, layers, false, inventory);
  AddRelativeBias(shape, inventory);
}

void AddDecoder(const Shape& shape, int64_t wide_heads, Lengths n, Inventory* inventory) {
  const int64_t layers = shape.decoder_layers / 2;
  AddDualAttention(shape, wide_heads, n, layers, inventory);
  AddDecoderConvolutions(shape.d_model, n.targets, layers, inventory);
  AddSelfAttention(shape, n.targets, layers, false, inventory);
  AddCrossAttention(shape, n.targets, n.inputs, layers, false, inventory);
  AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, layers, false, inventory);
  AddRelativeBias(shape, inventory);
  Shape wide = shape;
  wide.heads = wide_heads;
  if (wide_heads != shape.heads) AddRelativeBias(wide, inventory);
}

common::Error OddLayers(const char* field, int64_t layers) {
  return common::InvalidArgument("evolved: " + std::string(field) + " is " + std::to_string(layers) +
                                 ", and one of its layers replaces two; even numbers will do, such as " +
                                 (layers > 1 ? std::to_string(layers - 1) + " or " : "") + std::to_string(layers + 1));
}

class EvolvedArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "evolved"; }
  std::string_view paper() const override { return "So et al. 2019, arXiv 1901.11117"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"max_heads",
         "integer",
         0,
         {},
         0,
         65536,
         "most heads of the decoder layers' first self-attention, which has twice the others'; 0 = no limit"},
    };
    return specs;
  }
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override {
    ALLO_RETURN_IF_ERROR(InventoryArchitecture::CheckShape(shape, options));
    if (shape.encoder_layers % 2 != 0) return OddLayers("encoder_layers", shape.encoder_layers);
    if (shape.decoder_layers % 2 != 0) return OddLayers("decoder_layers", shape.decoder_layers);
    if (shape.d_model % 2 != 0)
      return common::InvalidArgument("evolved: d_model is " + std::to_string(shape.d_model) +
                                     ", and its convolutions need half of it; even numbers will do");
    const int64_t max_heads = options.at("max_heads").get<int64_t>();
    if (max_heads > 0 && max_heads < shape.heads)
      return common::InvalidArgument("evolved: max_heads is " + std::to_string(max_heads) + ", fewer than the " +
                                     std::to_string(shape.heads) + " heads of the shape; 0 or at least " +
                                     std::to_string(shape.heads) + " will do");
    return common::Ok();
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddEncoder(shape, n, &inventory);
    AddDecoder(shape, EvolvedWideHeads(shape, options), n, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

int64_t EvolvedWideHeads(const Shape& shape, const common::Json& options) {
  const int64_t max_heads = options.at("max_heads").get<int64_t>();
  return max_heads == 0 ? 2 * shape.heads : std::min(2 * shape.heads, max_heads);
}

const Architecture& Evolved() {
  static const EvolvedArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
