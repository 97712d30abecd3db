#include "arch/performer.h"

#include <algorithm>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

constexpr int64_t kLongestChunk = 64;

// q, k, v, o and the random features of queries and keys.
void AddProjections(const Shape& shape, int64_t s, int64_t layers, Inventory* inventory) {
  const int64_t d = shape.d_model, inner = shape.heads * shape.d_kv;
  inventory->AddMatrix(d, inner, 4 * layers);
  inventory->AddVector(d, layers);
  inventory->AddProduct(4 * layers * s, d, inner);
  inventory->AddProduct(2 * layers * s * shape.heads, shape.d_kv, kPerformerFeatures);
  inventory->AddActivations(layers * s * (2 * d + 4 * inner));
  // q, k, v and the output in float32; the features before and after exp, and as they enter the sums
  inventory->AddFloat32Activations(layers * s * (5 * inner + shape.heads * 6 * kPerformerFeatures));
  inventory->AddFloat32Workspace(s * shape.heads * 4 * kPerformerFeatures);  // gradients of both features' two stages
}

// Values carry a column of ones, whose sums are the denominators: d_kv + 1 columns.
void AddLinearAttention(const Shape& shape, int64_t s, int64_t layers, Inventory* inventory) {
  const int64_t columns = shape.d_kv + 1, sequences = layers * shape.heads;
  AddProjections(shape, s, layers, inventory);
  inventory->AddProduct(2 * sequences * s, kPerformerFeatures, columns);
  inventory->AddFloat32Activations(sequences * kPerformerFeatures * columns);
}

void AddCausalLinearAttention(const Shape& shape, int64_t t, int64_t layers, Inventory* inventory) {
  const int64_t columns = shape.d_kv + 1, sequences = layers * shape.heads;
  const PerformerChunks chunks = PerformerChunksOf(t);
  const int64_t positions = chunks.padded_length(), carried = positions - chunks.size;
  AddProjections(shape, t, layers, inventory);
  inventory->AddProduct(sequences * positions, chunks.size, kPerformerFeatures);  // queries by keys within a chunk
  inventory->AddProduct(sequences * positions, chunks.size, columns);
  inventory->AddProduct(2 * sequences * carried, kPerformerFeatures, columns);  // sums, and queries by them
  inventory->AddFloat32Activations(sequences *
                                   (positions * chunks.size + (chunks.count - 1) * kPerformerFeatures * columns));
}

class PerformerArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "performer"; }
  std::string_view paper() const override { return "Choromanski et al. 2020, arXiv 2009.14794"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"kernel",
         "choice",
         "softmax",
         {"softmax", "relu"},
         0,
         0,
         "what the random features estimate: exp(q k) or none"},
        {"redraw_steps", "integer", 0, {}, 0, 1e9, "training steps between two draws of the features; 0 = one draw"},
    };
    return specs;
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json&, Lengths n) const override {
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddLinearAttention(shape, n.inputs, shape.encoder_layers, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, shape.encoder_layers, false, &inventory);
    AddCausalLinearAttention(shape, n.targets, shape.decoder_layers, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, shape.decoder_layers, false, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

PerformerChunks PerformerChunksOf(int64_t length) {
  const int64_t count = std::max<int64_t>(1, (length + kLongestChunk - 1) / kLongestChunk);
  return {count, (length + count - 1) / count};
}

const Architecture& Performer() {
  static const PerformerArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
