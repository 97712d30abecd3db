#include "arch/inventory.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace allometry::arch {
namespace {

constexpr int64_t kRelativeBuckets = 32;
// Mesh TensorFlow counted a whole per-core batch; the paper's axis fits 128 sequences (SCIENCE section 6).
constexpr double kMtfSequences = 128;
constexpr int64_t kAdafactorFactorsFrom = 128;
// Measured: a trainer of PyTorch 2.11 with a model of next to no parameters.
constexpr int64_t kProcessBytes = 150'000'000;

// Second-moment values that Adafactor keeps for a tensor: a row and a column where both sides are long enough.
int64_t AdafactorValues(const TensorSpec& t) {
  bool factored = std::min(t.rows, t.columns) >= kAdafactorFactorsFrom;
  return t.count * (factored ? t.rows + t.columns : t.rows * t.columns);
}

}  // namespace

ParameterCount Inventory::Parameters() const {
  ParameterCount count;
  for (const TensorSpec& t : tensors_) {
    count.total += t.elements();
    if (!t.embedding) count.non_embedding += t.elements();
    count.active += t.rows * t.columns * (t.count - t.idle);
  }
  return count;
}

FlopCount Inventory::Flops() const {
  FlopCount flops;
  flops.forward_without_head = 2 * (body_madds_ + convolution_madds_);
  flops.forward = flops.forward_without_head + 2 * head_madds_;
  flops.mtf_multiply_adds = kMtfSequences * static_cast<double>(body_madds_ + head_madds_ + lookup_madds_);
  flops.six_nd_per_token = 6.0 * static_cast<double>(Parameters().non_embedding);
  return flops;
}

MemoryEstimate Inventory::Memory(const TrainingSetup& setup) const {
  const bool bf16 = setup.precision == "bf16";
  int64_t parameters = 0, adafactor_values = 0;
  for (const TensorSpec& t : tensors_) {
    parameters += t.elements();
    adafactor_values += AdafactorValues(t);
  }
  MemoryEstimate memory;
  memory.process_bytes = kProcessBytes;
  memory.heap_bytes = bf16 ? 2 * parameters : 0;
  memory.weights_bytes = parameters * (bf16 ? 2 + 4 : 4) + memory.heap_bytes;  // bf16: with float32 masters
  memory.gradients_bytes = parameters * (bf16 ? 2 : 4);
  memory.optimizer_bytes = 4 * (setup.optimizer == "adamw" ? 2 * parameters : adafactor_values);
  memory.activations_bytes = setup.micro_batch * (activation_values_ * (bf16 ? 2 : 4) + 4 * float32_activation_values_);
  memory.workspace_bytes =
      setup.micro_batch * std::max(workspace_values_ * (bf16 ? 2 : 4), 4 * float32_workspace_values_) +
      (bf16 ? (4 + 2) * float32_sum_values_ : 0);
  return memory;
}

void AddTiedEmbedding(const Shape& shape, Inventory* inventory) {
  const Lengths n = inventory->lengths();
  inventory->AddEmbedding(shape.vocabulary, shape.d_model);
  inventory->AddLookup(n.inputs + n.targets, shape.vocabulary, shape.d_model);
  inventory->AddHead(n.targets, shape.d_model, shape.vocabulary);
  inventory->AddActivations((n.inputs + n.targets) * shape.d_model);
  inventory->AddFloat32Activations(n.targets * shape.vocabulary);  // gradient of the logits
}

void AddUntiedEmbedding(const Shape& shape, Inventory* inventory) {
  AddTiedEmbedding(shape, inventory);
  inventory->AddEmbedding(shape.vocabulary, shape.d_model);
}

void AddSelfAttention(const Shape& shape, int64_t s, int64_t layers, bool shared, Inventory* inventory) {
  const int64_t d = shape.d_model, inner = shape.heads * shape.d_kv, owners = shared ? 1 : layers;
  inventory->AddMatrix(d, inner, 4 * owners);
  inventory->AddVector(d, owners);
  inventory->AddProduct(4 * layers * s, d, inner);
  inventory->AddProduct(2 * layers * s, s, inner);  // q·k and p·v over all heads
  // norm's output and input, q, k, v, the heads' output, and the probabilities
  inventory->AddActivations(layers * s * (2 * d + 4 * inner));
  inventory->AddActivations(layers * shape.heads * s * s);
  inventory->AddWorkspace(2 * shape.heads * s * s);  // gradients of probabilities and scores
}

void AddCrossAttention(const Shape& shape, int64_t t, int64_t s_memory, int64_t layers, bool shared,
                       Inventory* inventory) {
  const int64_t d = shape.d_model, inner = shape.heads * shape.d_kv, owners = shared ? 1 : layers;
  inventory->AddMatrix(d, inner, 4 * owners);
  inventory->AddVector(d, owners);
  inventory->AddProduct(2 * layers * t, d, inner);
  inventory->AddProduct(2 * layers * s_memory, d, inner);
  inventory->AddProduct(2 * layers * t, s_memory, inner);
  inventory->AddActivations(layers * (t * (2 * d + 2 * inner) + 2 * s_memory * inner));
  inventory->AddActivations(layers * shape.heads * t * s_memory);
}

void AddFeedForward(int64_t d_model, int64_t d_ff, int matrices, int64_t s, int64_t layers, bool shared,
                    Inventory* inventory) {
  const int64_t owners = shared ? 1 : layers;
  inventory->AddMatrix(d_model, d_ff, matrices * owners);
  inventory->AddVector(d_model, owners);
  inventory->AddProduct(matrices * layers * s, d_model, d_ff);
  inventory->AddActivations(layers * s * (2 * d_model + (matrices == 2 ? 1 : 3) * d_ff));
  inventory->AddWorkspace(s * (d_model + (matrices == 2 ? 1 : 3) * d_ff));
}

void AddRelativeBias(const Shape& shape, Inventory* inventory) { inventory->AddMatrix(kRelativeBuckets, shape.heads); }

void AddFinalNorms(const Shape& shape, Inventory* inventory) {
  inventory->AddVector(shape.d_model, 2);
  inventory->AddActivations((inventory->lengths().inputs + inventory->lengths().targets) * 2 * shape.d_model);
}

ParameterCount InventoryArchitecture::CountParameters(const Shape& shape, const common::Json& options) const {
  return Take(shape, options, {1, 1}).Parameters();
}

FlopCount InventoryArchitecture::CountFlops(const Shape& shape, const common::Json& options, Lengths lengths) const {
  return Take(shape, options, lengths).Flops();
}

MemoryEstimate InventoryArchitecture::EstimateMemory(const Shape& shape, const common::Json& options,
                                                     const TrainingSetup& setup) const {
  return Take(shape, options, setup.lengths).Memory(setup);
}

common::Status InventoryArchitecture::CheckShape(const Shape& shape, const common::Json&) const {
  const std::pair<const char*, int64_t> fields[] = {{"encoder_layers", shape.encoder_layers},
                                                    {"decoder_layers", shape.decoder_layers},
                                                    {"d_model", shape.d_model},
                                                    {"d_ff", shape.d_ff},
                                                    {"heads", shape.heads},
                                                    {"d_kv", shape.d_kv},
                                                    {"vocabulary", shape.vocabulary}};
  for (const auto& [field, value] : fields)
    if (value < 1)
      return common::InvalidArgument(std::string(name()) + ": " + field + " is " + std::to_string(value) +
                                     ", and must be at least 1");
  return common::Ok();
}

int64_t RoundToMultipleOf8(double value) {
  return std::max<int64_t>(8, 8 * static_cast<int64_t>(std::floor(value / 8 + 0.5)));
}

}  // namespace allometry::arch
