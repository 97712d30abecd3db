#pragma once

#include <optional>
#include <string>
#include <vector>

#include "analysis/compute_optimal.h"
#include "analysis/isoflop.h"
#include "analysis/laws.h"
#include "analysis/measures.h"
#include "analysis/slopes.h"
#include "common/json.h"
#include "common/result.h"
#include "records/records.h"

// Laws of a table's cells, per architecture (docs/science.md, "Laws of a sweep"). Pure functions.
namespace allometry::analysis {

// How cells become points. N are parameters in the convention of `slopes`, D the recorded `tokens`, C the FLOPs in its
// convention, L the validation loss.
struct LawPointOptions {
  SlopesRequest slopes;              // which cells, conventions and tasks; its transform and baseline are not read
  bool pooled = false;               // all architectures as one, called "*"
  bool runs = false;                 // a point is a run, and not the mean over the seeds of a size
  std::string score = "downstream";  // y of kSigmoid, and 1 - y of kExponential: "downstream", a task or an average
};

// The points of one architecture for one form, by rising x.
struct StudiedPoints {
  std::string architecture;
  std::vector<std::string> names;  // sizes, or cells; one a point
  std::vector<LawPoint> points;
};

struct LawStudyRequest {
  LawPointOptions points;
  // Empty: kCompute, kParametersTokens where tokens vary, and kSigmoid and kExponential where there are scores.
  std::vector<LawForm> forms;
  std::optional<double> budget_flops;  // the best N and D for it, of kParametersTokens
  bool isoflop = false;
  LawOptions options;  // its confidence is that of points.slopes
};

// What one fit says of a budget, in the order of LawResult::fits.
struct StudiedAllocation {
  std::optional<AllocationResult> result;
  std::string refused;
};

struct StudiedLaw {
  LawForm form = LawForm::kCompute;
  StudiedPoints points;
  std::optional<LawResult> fit;
  std::string refused;                         // why there is no fit
  std::vector<StudiedAllocation> allocations;  // one a fit, of kParametersTokens with a budget
};

struct StudiedIsoFlop {
  std::string architecture;
  std::optional<IsoFlopResult> result;
  std::string refused;
};

struct LawStudy {
  LawStudyRequest request;
  Downstream downstream;
  std::vector<StudiedLaw> laws;  // by architecture and form
  std::vector<StudiedIsoFlop> isoflop;
  std::vector<LeftOut> left_out;
};

// Cells that a form can take, in groups. Cells that lack a number are left out with the reason, of a pair of forms
// once. kInvalidArgument: an unknown score.
common::Result<std::vector<StudiedPoints>> PointsOfForm(const Selection& selection, LawForm form,
                                                        const LawPointOptions& options, LeftOutList* left_out);

// kInvalidArgument: bad options, an unknown task or score; kFailedPrecondition: no usable cell. A law that cannot be
// had is in the result with its reason.
common::Result<LawStudy> StudyLaws(const records::Table& table, const LawStudyRequest& request);

// Keys: docs/science.md, "Output".
common::Json ToJson(const LawStudy& study);

}  // namespace allometry::analysis
