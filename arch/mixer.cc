#include "arch/mixer.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "arch/inventory.h"

namespace allometry::arch {
namespace {

// T to hidden units and back, for every channel. `s` of the T positions are there; the others are padding, hence zero,
// and their products are left out.
void AddTokenMixing(const Shape& shape, int64_t length, int64_t s, int64_t layers, Inventory* inventory) {
  const int64_t d = shape.d_model, hidden = MixerHidden(shape);
  inventory->AddMatrix(hidden, length, layers);
  inventory->AddMatrix(length, hidden, layers);
  inventory->AddVector(d, layers);
  inventory->AddProduct(2 * layers * d, s, hidden);
  // norm's input and output, the latter transposed; hidden values before and after the activation
  inventory->AddActivations(layers * d * (3 * s + 2 * hidden));
}

class MixerArchitecture final : public InventoryArchitecture {
 public:
  std::string_view name() const override { return "mixer"; }
  std::string_view paper() const override { return "Tolstikhin et al. 2021, arXiv 2105.01601"; }
  int numerics_version() const override { return 1; }
  std::span<const OptionSpec> options() const override {
    static const std::vector<OptionSpec> specs{
        {"decoder",
         "choice",
         "attention",
         {"attention", "causal_mixing"},
         0,
         0,
         "causal self-attention in the decoder, or token mixing with causal masks"},
        {"input_length", "integer", 512, {}, 1, 1 << 20, "input positions of the model; a sweep takes its recipe's"},
        {"target_length",
         "integer",
         114,
         {},
         1,
         1 << 20,
         "target positions of a decoder with causal_mixing; a sweep takes its recipe's"},
    };
    return specs;
  }
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override {
    ALLO_RETURN_IF_ERROR(InventoryArchitecture::CheckShape(shape, options));
    if (shape.d_model % 2 != 0)
      return common::InvalidArgument("mixer: d_model is " + std::to_string(shape.d_model) +
                                     ", and its d_model / 2 hidden units need an even one");
    return common::Ok();
  }
  Lengths LongestLengths(const common::Json& options) const override {
    return {options.at("input_length").get<int64_t>(),
            MixesTargets(options) ? options.at("target_length").get<int64_t>() : std::numeric_limits<int64_t>::max()};
  }

 protected:
  Inventory Take(const Shape& shape, const common::Json& options, Lengths given) const override {
    const Lengths longest = LongestLengths(options);
    const Lengths n{std::min(given.inputs, longest.inputs), std::min(given.targets, longest.targets)};
    Inventory inventory(n);
    AddTiedEmbedding(shape, &inventory);
    AddTokenMixing(shape, longest.inputs, n.inputs, shape.encoder_layers, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.inputs, shape.encoder_layers, false, &inventory);
    if (MixesTargets(options)) {
      AddTokenMixing(shape, longest.targets, n.targets, shape.decoder_layers, &inventory);
    } else {
      AddSelfAttention(shape, n.targets, shape.decoder_layers, false, &inventory);
      AddRelativeBias(shape, &inventory);
    }
    AddCrossAttention(shape, n.targets, n.inputs, shape.decoder_layers, false, &inventory);
    AddFeedForward(shape.d_model, shape.d_ff, 2, n.targets, shape.decoder_layers, false, &inventory);
    AddFinalNorms(shape, &inventory);
    return inventory;
  }

 private:
  static bool MixesTargets(const common::Json& options) {
    return options.at("decoder").get<std::string>() == "causal_mixing";
  }
};

}  // namespace

int64_t MixerHidden(const Shape& shape) { return shape.d_model / 2; }

const Architecture& Mixer() {
  static const MixerArchitecture instance;
  return instance;
}

}  // namespace allometry::arch
