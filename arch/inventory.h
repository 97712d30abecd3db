#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arch/architecture.h"

namespace allometry::arch {

// What an architecture is made of, from which all its costs follow: the tensors it owns and the products that one
// example's forward pass computes. Counts are exact.
struct TensorSpec {
  int64_t rows = 1;  // 1 for vectors
  int64_t columns = 1;
  int64_t count = 1;       // equal tensors
  bool embedding = false;  // vocabulary tables and their factors
  int64_t idle = 0;        // of `count`, those that one token does not use: other tokens' experts
  int64_t elements() const { return rows * columns * count; }
};

class Inventory {
 public:
  explicit Inventory(Lengths lengths) : lengths_(lengths) {}

  void AddMatrix(int64_t rows, int64_t columns, int64_t count = 1) { tensors_.push_back({rows, columns, count}); }
  void AddVector(int64_t size, int64_t count = 1) { tensors_.push_back({1, size, count}); }
  // `layers` stacks of `experts` matrices, of each of which one token uses one.
  void AddExpertMatrices(int64_t rows, int64_t columns, int64_t experts, int64_t layers) {
    tensors_.push_back({rows, columns, experts * layers, false, (experts - 1) * layers});
  }
  void AddEmbedding(int64_t rows, int64_t columns) { tensors_.push_back({rows, columns, 1, true}); }
  // `positions` vectors each times a [rows x columns] matrix.
  void AddProduct(int64_t positions, int64_t rows, int64_t columns) { body_madds_ += positions * rows * columns; }
  // Dense convolutions: counted as FLOPs, left out by Mesh TensorFlow's counter. Depthwise ones are products.
  void AddDenseConvolution(int64_t positions, int64_t channel_pairs, int64_t width) {
    convolution_madds_ += positions * channel_pairs * width;
  }
  void AddHead(int64_t positions, int64_t rows, int64_t columns) { head_madds_ += positions * rows * columns; }
  // A table look-up by `positions` tokens: free here, a one-hot product for Mesh TensorFlow.
  void AddLookup(int64_t positions, int64_t rows, int64_t columns) { lookup_madds_ += positions * rows * columns; }
  // Values kept for the backward pass, per example.
  void AddActivations(int64_t values) { activation_values_ += values; }
  void AddFloat32Activations(int64_t values) { float32_activation_values_ += values; }
  // Values, per example, that a layer's backward pass holds besides; layers run one after another, so the largest
  // counts.
  void AddWorkspace(int64_t values) { workspace_values_ = std::max(workspace_values_, values); }
  void AddFloat32Workspace(int64_t values) { float32_workspace_values_ = std::max(float32_workspace_values_, values); }
  // Values of a gradient that a bf16 model sums in float32, from pieces in bf16, whatever the micro-batch.
  void AddFloat32Sums(int64_t values) { float32_sum_values_ += values; }

  Lengths lengths() const { return lengths_; }
  ParameterCount Parameters() const;
  FlopCount Flops() const;
  MemoryEstimate Memory(const TrainingSetup& setup) const;

 private:
  Lengths lengths_;
  std::vector<TensorSpec> tensors_;
  int64_t body_madds_ = 0, convolution_madds_ = 0, head_madds_ = 0, lookup_madds_ = 0;
  int64_t activation_values_ = 0, float32_activation_values_ = 0, workspace_values_ = 0,
          float32_workspace_values_ = 0, float32_sum_values_ = 0;
};

// The parts of the T5 v1.0 backbone (SCIENCE section 3). `s` is the sequence the layer runs over, `s_memory` the
// encoder's length for cross-attention.
void AddTiedEmbedding(const Shape& shape, Inventory* inventory);  // look-ups of both stacks and the tied head
void AddUntiedEmbedding(const Shape& shape, Inventory* inventory);
void AddSelfAttention(const Shape& shape, int64_t s, int64_t layers, bool shared, Inventory* inventory);
void AddCrossAttention(const Shape& shape, int64_t t, int64_t s_memory, int64_t layers, bool shared,
                       Inventory* inventory);
// `matrices` is 2 for ReLU, 3 for gated feed-forward layers of width d_ff.
void AddFeedForward(int64_t d_model, int64_t d_ff, int matrices, int64_t s, int64_t layers, bool shared,
                    Inventory* inventory);
void AddRelativeBias(const Shape& shape, Inventory* inventory);  // one 32-bucket table
void AddFinalNorms(const Shape& shape, Inventory* inventory);    // one of each stack

// An architecture given by its inventory: the base of every file in arch/.
class InventoryArchitecture : public Architecture {
 public:
  ParameterCount CountParameters(const Shape& shape, const common::Json& options) const final;
  FlopCount CountFlops(const Shape& shape, const common::Json& options, Lengths lengths) const final;
  MemoryEstimate EstimateMemory(const Shape& shape, const common::Json& options,
                                const TrainingSetup& setup) const final;
  common::Status CheckShape(const Shape& shape, const common::Json& options) const override;

 protected:
  virtual Inventory Take(const Shape& shape, const common::Json& options, Lengths lengths) const = 0;
};

// `value` rounded to the nearest multiple of 8, at least 8; halves up.
int64_t RoundToMultipleOf8(double value);

}  // namespace allometry::arch
