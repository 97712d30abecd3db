#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "arch/architecture.h"
#include "common/json.h"
#include "common/result.h"

namespace allometry::coordinator {

inline constexpr int64_t kMostDevices = 1'024;  // of one run

// One shape of the grid: a size, with what the axes changed in its name.
struct GridShape {
  std::string name;      // "small-nl16"
  int size_index = 0;    // in spec.sizes
  arch::Shape shape;     // vocabulary set
  common::Json given;    // only the dimensions that the sweep names; for trainers of one's own
  common::Json options;  // of the size
};

// All sizes crossed with all axes, in the order of the file. kInvalidArgument for a size that is neither known nor
// complete.
common::Result<std::vector<GridShape>> ShapesOf(const v1::SweepSpec& spec);
common::Result<arch::Shape> ShapeOfSize(const v1::SizeSpec& size, const v1::SweepSpec& spec);
int64_t ShapeCount(const v1::SweepSpec& spec);  // without building them

bool IsBuiltin(const v1::SweepSpec& spec);
// Whether data names folders that were built already (`path` or `mixture`), and not raw text.
bool IsBuiltData(const v1::SweepSpec& spec);
// The part's own name, or its folder's.
std::string PartNameOf(const v1::DataPartSpec& part);
// Of a built data set only what the sweep itself says: whoever reads the folder completes the sweep.
int64_t VocabularyOf(const v1::SweepSpec& spec);
// Devices of a size or, where it does not say, of the sweep: "auto", or a number; nothing where it is neither.
std::string DevicesText(const v1::SweepSpec& spec, const v1::SizeSpec& size);
std::optional<int64_t> ParseDevices(const std::string& text);  // 0: auto
// Runs that share a GPU, in the same way: "auto", 1, 2, 4, 8 or 16.
std::string SlotsPerGpuText(const v1::SweepSpec& spec, const v1::SizeSpec& size);
std::optional<int64_t> ParseSlotsPerGpu(const std::string& text);  // 0: auto
std::string LabelOf(const v1::ArchitectureSpec& architecture);
// "<label>-<size>-s<seed>", of a pretraining cell.
std::string CellName(const v1::ArchitectureSpec& architecture, const GridShape& shape, uint64_t seed);
std::vector<uint64_t> SeedsOf(const v1::SweepSpec& spec);

// Numbers without a fraction become integers.
common::Json StructToJson(const google::protobuf::Struct& value);

}  // namespace allometry::coordinator
