#pragma once

#include <string>
#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "arch/architecture.h"
#include "arch/objective.h"
#include "common/json.h"
#include "coordinator/grid/shapes.h"

// The resolved `run` objects of the trainer contract, with every default filled in. The spec has passed CheckSpec.
namespace allometry::coordinator {

// What pretraining makes of text, with defaults. Unlike the rest it may be asked of a spec that was not checked.
arch::ObjectiveSettings ObjectiveOf(const v1::PretrainingSpec& pretraining);

common::Json PrepareTextRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest);

// `tasks`: those of TasksOf(spec) that are fine-tuned on together. `text`: the identity of the run that prepares the
// text.
common::Json PrepareTasksRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest,
                             const std::vector<v1::TaskSpec>& tasks, const std::string& text);

// The complete options of a built-in architecture; what is built for a length gets pretraining's unless `given` has it.
common::Result<common::Json> OptionsOf(const v1::SweepSpec& spec, const arch::Architecture& architecture,
                                       const common::Json& given);

// The `model` object of one architecture at one shape.
common::Json ModelOf(const v1::SweepSpec& spec, const v1::ArchitectureSpec& architecture, const GridShape& shape);

// `data`: the identity of the run that prepares the text; empty for trainers of one's own, which get the corpus itself.
common::Json PretrainRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest,
                         const common::Json& model, const std::string& data, int64_t steps, uint64_t seed);

// `tasks`: those of TasksOf(spec) that the run trains on. `data`: the identity of the run that prepares them. `parent`:
// the identity of the pretraining run.
common::Json FinetuneRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest,
                         const common::Json& model, const std::vector<v1::TaskSpec>& tasks, const std::string& data,
                         const std::string& parent, uint64_t seed);

// What one step trains on.
struct StepSize {
  arch::Lengths lengths;
  int64_t batch_sequences = 0;
};
StepSize PretrainingStep(const v1::SweepSpec& spec);
StepSize FinetuningStep(const v1::SweepSpec& spec);
int64_t FinetuningSteps(const v1::SweepSpec& spec);

// Steps of the one budget that the sweep names: tokens round up, FLOPs to the nearest step, at least 1.
int64_t PretrainingSteps(const v1::SweepSpec& spec, int64_t non_embedding_parameters, int64_t forward_flops);

}  // namespace allometry::coordinator
