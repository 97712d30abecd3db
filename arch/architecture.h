#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"

// What an architecture is, without LibTorch: its options, which shapes it can take, and its exact costs. All functions
// are pure and thread-safe; counts are exact 64-bit integers per example unless a comment says otherwise.
namespace allometry::arch {

// The size of a model. Every field is positive.
struct Shape {
  int64_t encoder_layers = 0;
  int64_t decoder_layers = 0;
  int64_t d_model = 0;
  int64_t d_ff = 0;
  int64_t heads = 0;
  int64_t d_kv = 0;        // depth of one head; heads * d_kv may differ from d_model
  int64_t vocabulary = 0;  // rows of the embedding: pieces + 100 sentinels + padding
  bool operator==(const Shape&) const = default;
};

// Tokens of one example as the model sees them, padding included.
struct Lengths {
  int64_t inputs = 0;
  int64_t targets = 0;
};

// A named row of the size grid (SCIENCE section 2). `vocabulary` of the row is 32,128 unless a sweep says otherwise.
struct Size {
  std::string_view name;
  Shape shape;
};
std::span<const Size> Sizes();
common::Result<Shape> FindSize(std::string_view name);  // kNotFound names the nearest size

// One option of an architecture, for checking and for documentation.
struct OptionSpec {
  std::string name;
  std::string type;  // "integer", "number", "boolean" or "choice"
  common::Json default_value;
  std::vector<std::string> choices;  // for "choice"
  double minimum = 0, maximum = 0;   // for "integer" and "number", inclusive
  std::string help;
};

struct ParameterCount {
  int64_t total = 0;
  int64_t non_embedding = 0;
  int64_t active = 0;  // used by one token
};

// FLOPs of one example's forward pass: 2 per multiply-add of every matrix product, convolution and attention product;
// norms, softmax, look-ups and recomputation are not counted. Training costs three times as much.
struct FlopCount {
  int64_t forward = 0;
  int64_t forward_without_head = 0;  // the output projection to the vocabulary left out
  double mtf_multiply_adds = 0;      // Mesh TensorFlow's counter: 128 forward passes at the given lengths
  double six_nd_per_token = 0;       // 6 N with N the non-embedding parameters
};

// The peak of a training run: on a CPU the resident size of the process, on a GPU (OnGpu) what the allocator holds.
// Within 15 % of what was measured (tests/memory). Activation checkpointing is not considered.
struct MemoryEstimate {
  int64_t process_bytes = 0;  // before there is a model: LibTorch's code and data
  int64_t weights_bytes = 0;
  int64_t heap_bytes = 0;  // of weights_bytes: what a CPU's heap keeps of the float32 weights of a run in bf16
  int64_t gradients_bytes = 0;
  int64_t optimizer_bytes = 0;
  int64_t activations_bytes = 0;  // kept for the backward pass, at the given micro-batch
  int64_t workspace_bytes = 0;    // what the backward pass of the hungriest layer needs besides
  MemoryEstimate OnGpu() const {
    MemoryEstimate gpu = *this;
    gpu.weights_bytes -= heap_bytes;
    gpu.process_bytes = gpu.heap_bytes = 0;
    return gpu;
  }
  int64_t total() const {
    return process_bytes + weights_bytes + gradients_bytes + optimizer_bytes + activations_bytes + workspace_bytes;
  }
};

struct TrainingSetup {
  Lengths lengths;
  int64_t micro_batch = 1;              // sequences
  std::string precision = "fp32";       // or "bf16"
  std::string optimizer = "adafactor";  // or "adamw"
};

// An architecture. Instances are constants owned by the registry.
class Architecture {
 public:
  virtual ~Architecture() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view paper() const = 0;
  // Raised whenever the same weights and batch would give another loss: part of every run's identity.
  virtual int numerics_version() const = 0;
  virtual std::span<const OptionSpec> options() const = 0;
  // Whether the architecture can take this shape with these (complete, checked) options; the message names what it can.
  virtual common::Status CheckShape(const Shape& shape, const common::Json& options) const = 0;
  // The longest inputs and targets that a model with these (complete) options takes; without limit unless overridden.
  virtual Lengths LongestLengths(const common::Json& options) const;
  virtual ParameterCount CountParameters(const Shape& shape, const common::Json& options) const = 0;
  virtual FlopCount CountFlops(const Shape& shape, const common::Json& options, Lengths lengths) const = 0;
  virtual MemoryEstimate EstimateMemory(const Shape& shape, const common::Json& options,
                                        const TrainingSetup& setup) const = 0;
};

// All architectures, in the order of docs/architectures.md.
std::span<const Architecture* const> Architectures();
common::Result<const Architecture*> FindArchitecture(std::string_view name);  // kNotFound names the nearest one

// Fills in defaults and checks names, types and ranges. Returns an object with every option of the architecture.
common::Result<common::Json> CompleteOptions(const Architecture& architecture, const common::Json& given);

// An architecture with an option `input_length` or `target_length` is built for sequences of that length. Sets those of
// them that `given` leaves out to the lengths of the recipe that pretrains the model.
common::Json WithRecipeLengths(const Architecture& architecture, const common::Json& given, Lengths recipe);

}  // namespace allometry::arch
