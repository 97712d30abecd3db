#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "common/result.h"

namespace allometry::trainer {

// The content of one safetensors file: 8 bytes with the length of a JSON header, the header (name -> dtype, shape and
// byte range; "__metadata__" maps strings to strings), then the tensors' bytes without gaps, little-endian.
struct TensorFile {
  std::map<std::string, at::Tensor> tensors;  // any device and strides when written; contiguous on the CPU when read
  std::map<std::string, std::string> metadata;
};

// Reads and checks a whole file. kNotFound if it is absent; kDataLoss with the reason if the file is cut off, its
// ranges overlap or leave gaps, or a range does not have the size of its shape. The tensors own their memory.
common::Result<TensorFile> ReadSafetensors(const std::filesystem::path& path);

// Writes temporary + fsync + rename + fsync of the directory, so that no reader ever sees half a file. Returns the
// SHA-256 of the file's bytes. Larger element types come first, then names in order: equal content gives equal bytes.
// Each tensor is let go when its bytes have been handed to the system, and after the last one `all_read` is called: if
// they cannot all be handed over, never.
common::Result<std::string> WriteSafetensors(const std::filesystem::path& path, TensorFile content,
                                             const std::function<void()>& all_read = nullptr);

}  // namespace allometry::trainer
