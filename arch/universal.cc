#include "arch/universal.h"

#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

struct Stack {
  int64_t layers = 0, length = 0;
  int64_t sublayers = 0;  // of the block
  int64_t applications() const { return UniversalApplications(layers); }
};

// Two gates [2 d x 2 d] and a candidate [d x 2 d] for each sublayer, and the norms of the gate's other two inputs.
void AddGates(int64_t d, const Stack& stack, Inventory* inventory) {
  inventory->AddMatrix(2 * d, 2 * d, stack.sublayers);
  inventory->AddMatrix(d, 2 * d, stack.sublayers);
  inventory->AddVector(d, 2 * stack.sublayers);
  const int64_t positions = stack.applications() * stack.sublayers * stack.length;
  inventory->AddProduct(positions, 2 * d, 3 * d);
  inventory->AddActivations(positions * 14 * d);
}

// The learned signal of every step, and what decides when a position halts.
void AddRecurrence(const Shape& shape, const common::Json& options, const Stack& stack, Inventory* inventory) {
  const int64_t d = shape.d_model, steps = UniversalSteps(stack.layers);
  if (options.at("gate") == "gru") AddGates(d, stack, inventory);
  inventory->AddMatrix(steps, d);
  if (options.at("halting") != "act") return;
  inventory->AddMatrix(1, d);
  inventory->AddProduct(steps * stack.length, d, 1);
  inventory->AddActivations(steps * stack.length * d);
  inventory->AddFloat32Activations(steps * stack.length * (d + 4));
}

class UniversalArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "universal"; }
  std::string_view paper() const override { return "Dehghani et al. 2018, arXiv 1807.03819"; }
  int numerics_version() const override { return 2; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"gate",
         "choice",
         "gru",
         {"gru", "none"},
         0,
         0,
         "how a sublayer's output enters the state: through a GRU, or added"},
        {"halting",
         "choice",
         "none",
         {"none", "act"},
         0,
         0,
         "whether a position may stop before the last step; FLOPs are counted as if none did"},
    };
    return specs;
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths n) const override {
    const Stack encoder{shape.encoder_layers, n.inputs, 2}, decoder{shape.decoder_layers, n.targets, 3};
    Inventory inventory(n);
    AddUntiedEmbedding(shape, &inventory);
    AddSelfAttention(shape, n.inputs, encoder.applications(), true, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, encoder.applications(), true, &inventory);
    AddSelfAttention(shape, n.targets, decoder.applications(), true, &inventory);
    AddCrossAttention(shape, n.targets, n.inputs, decoder.applications(), true, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, decoder.applications(), true, &inventory);
    for (const Stack& stack : {encoder, decoder}) {
      AddRecurrence(shape, options, stack, &inventory);
      AddRelativeBias(shape, &inventory);
    }
    AddFinalNorms(shape, &inventory);
    return inventory;
  }
};

}  // namespace

const Architecture& Universal() {
  static const UniversalArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
