#include <ATen/ATen.h>

#include <algorithm>
#include <span>

#include "worker/trainer/data/prepare.h"
#include "worker/trainer/data/pretrain_batches.h"
#include "worker/trainer/engine/run_kinds.h"
#include "worker/trainer/engine/validation.h"

namespace allometry::trainer {
namespace {

using common::Json;

constexpr int64_t kValidationRows = 32;

// A batch in the exact lengths of the objective; `fill` is given its two arrays.
template <typename Fill>
HostBatch MakeBatch(const arch::ObjectiveLengths& lengths, int64_t rows, Fill fill) {
  HostBatch batch{at::empty({rows, lengths.inputs}, at::kLong), at::empty({rows, lengths.targets}, at::kLong)};
  auto* targets = batch.targets_bt.mutable_data_ptr<int64_t>();
  fill(lengths.inputs, lengths.targets, batch.inputs_bs.mutable_data_ptr<int64_t>(), targets);
  const int64_t positions = rows * lengths.targets;
  batch.target_tokens = positions - std::count(targets, targets + positions, kPad);
  return batch;
}

common::Status CheckVocabulary(const Dataset& data, int64_t vocabulary) {
  const int64_t needed = data.tokenizer().pieces() + kSentinels;
  if (vocabulary >= needed) return common::Ok();
  return common::InvalidArgument("run.model.shape.vocabulary is " + std::to_string(vocabulary) +
                                 ", but the data need " + std::to_string(needed) +
                                 " ids: " + std::to_string(data.tokenizer().pieces()) + " pieces and " +
                                 std::to_string(kSentinels) + " sentinels");
}

// One part's measures, told apart where there are several.
Json PartMeasures(const ValidationSums& sums) {
  return {{"validation_loss", sums.loss()},
          {"text_loss", sums.text_loss()},
          {"bits_per_byte", sums.bits_per_byte()},
          {"validation_targets", sums.tokens}};
}

Evaluation EvaluationOf(const ValidationOutcome& outcome, std::span<const TextPart> parts) {
  const ValidationSums& all = outcome.all;
  Evaluation evaluation{
      -all.loss(),
      {{"valid/loss", all.loss()}, {"valid/text_loss", all.text_loss()}, {"valid/bits_per_byte", all.bits_per_byte()}},
      Json{{"unigram_loss", all.unigram_loss()}}};
  for (size_t p = 0; p < parts.size() && parts.size() > 1; ++p) {
    evaluation.values["valid/" + parts[p].name + "/loss"] = outcome.parts[p].loss();
    evaluation.detail["parts"].push_back(PartMeasures(outcome.parts[p]));
  }
  return evaluation;
}

// The swapped loss costs another pass, so only the last evaluation has it.
std::optional<Evaluation> Evaluate(ModelState& state, const TrainingSession& session, const ValidationSet& validation,
                                   std::span<const TextPart> parts, bool last) {
  const auto outcome = Validate(state, session.device(), validation, ValidationInputs::kOwn, session.group());
  if (!outcome) return std::nullopt;
  Evaluation evaluation = EvaluationOf(*outcome, parts);
  if (!last) return evaluation;
  const auto swapped = Validate(state, session.device(), validation, ValidationInputs::kOfAnotherRow, session.group());
  if (!swapped) return std::nullopt;
  evaluation.detail["swapped_inputs_loss"] = swapped->all.loss();
  return evaluation;
}

LoopWork MakeWork(const PretrainConfig& config, const TrainingSession& session, const PretrainBatches& batches,
                  const ValidationSet& validation, std::span<const TextPart> parts) {
  LoopWork work;
  work.make_batch = [&batches, rows = config.training.batch_sequences](int64_t step) {
    return MakeBatch(batches.lengths(), rows,
                     [&](int64_t inputs_width, int64_t targets_width, int64_t* in, int64_t* out) {
                       batches.Fill(step - 1, 0, rows, inputs_width, targets_width, in, out);
                     });
  };
  work.evaluate = [&session, &validation, parts](ModelState& state, bool last) {
    return Evaluate(state, session, validation, parts, last);
  };
  work.evaluates_together = true;
  work.input_length = batches.lengths().inputs;
  return work;
}

// Validation takes no more sequences at once than training does, and so no more memory.
ValidationSet MakeValidation(const Dataset& data, const ValidationBatches& batches, int64_t micro_batch) {
  ValidationSet set;
  set.examples = batches.size();
  set.batch_rows = kValidationRows;
  set.pass_rows = std::min(kValidationRows, micro_batch);
  set.batch = [&batches](int64_t first, int64_t rows) {
    ValidationRows made;
    made.batch =
        MakeBatch(batches.lengths(), rows, [&](int64_t inputs_width, int64_t targets_width, int64_t* in, int64_t* out) {
          batches.Fill(first, rows, inputs_width, targets_width, in, out);
        });
    const at::Tensor& targets = made.batch.targets_bt;
    made.is_text.resize(static_cast<size_t>(targets.numel()));
    batches.MarkText(first, rows, targets.size(1), targets.const_data_ptr<int64_t>(), made.is_text.data());
    for (int64_t r = 0; r < rows; ++r) made.parts.push_back(batches.PartOf(first + r));
    return made;
  };
  set.parts = data.parts().size();
  set.unigram_nll = data.unigram_nll();
  set.text_bytes = data.TextBytes();
  return set;
}

// Which sequences the validation measures are over. Equal text, objective and size give an equal hash.
Json DescribeValidation(const Dataset& data, const PretrainConfig& config, const ValidationBatches& validation) {
  std::string name;
  for (const TextPart& part : data.parts()) name += (name.empty() ? "" : "+") + part.name;
  name += "/valid/" + config.objective.name + "-" + std::to_string(validation.lengths().inputs) + "-" +
          std::to_string(validation.lengths().targets) + (config.join == Join::kNone ? "-unjoined" : "");
  return {{"name", name}, {"examples", validation.size()}, {"sha256", validation.Sha256()}};
}

// A prefix language model reads its targets whole and in order, whatever the pieces are; what the others hide depends
// on where the pieces end.
Json DescribeBitsPerByte(const arch::ObjectiveSettings& objective) {
  const bool whole = objective.name == "prefix_lm";
  return {{"over", whole ? "text of the targets" : "masked text"}, {"comparable_across_tokenizers", whole}};
}

// What each part gave, and its own measures where there are several.
Json DescribeParts(const std::vector<PartUse>& use, const Evaluation& evaluation) {
  Json parts = Json::array();
  for (size_t p = 0; p < use.size(); ++p) {
    Json part{{"name", use[p].name},           {"rate", use[p].rate},       {"rows", use[p].rows},
              {"sequences", use[p].sequences}, {"epochs", use[p].epochs()}, {"left_out_tokens", use[p].left_out}};
    if (use.size() > 1) part.update(evaluation.detail.at("parts").at(p));
    parts.push_back(std::move(part));
  }
  return parts;
}

Ending Finish(const RunContext& context, const TrainingSession& session, const PretrainConfig& config,
              const PretrainBatches& batches, const Json& validation_set) {
  const arch::Lengths lengths{batches.lengths().inputs, batches.lengths().targets};
  std::map<std::string, double> metrics = session.Metrics(lengths);
  const Evaluation& evaluation = session.summary().final;
  metrics["validation_loss"] = evaluation.values.at("valid/loss");
  metrics["text_loss"] = evaluation.values.at("valid/text_loss");
  metrics["bits_per_byte"] = evaluation.values.at("valid/bits_per_byte");
  for (const char* name : {"unigram_loss", "swapped_inputs_loss"})
    metrics[name] = evaluation.detail.at(name).get<double>();
  auto outputs = session.WriteModel();
  if (!outputs) return {ExitCode::kCrash, outputs.error().message};
  Json report = session.Report();
  report["input_length"] = lengths.inputs;
  report["target_length"] = lengths.targets;
  const std::vector<PartUse> use = batches.Use(config.training.steps);
  report["epochs"] = std::ranges::max(use, {}, &PartUse::epochs).epochs();  // of the part that is repeated most
  report["parts"] = DescribeParts(use, evaluation);
  report["validation_examples"] = validation_set.at("examples");
  report["validation_set"] = validation_set;
  report["bits_per_byte"] = DescribeBitsPerByte(config.objective);
  return WriteResult(context, metrics, Json::array(), *outputs, report);
}

}  // namespace

Ending RunPretrain(const RunContext& context) {
  auto config = ParsePretrain(context.config.run);
  if (!config) return EndingOf(config.error());
  auto folder = InputFolder(context, "data");
  if (!folder) return EndingOf(folder.error());
  auto data = Dataset::Open(*folder);
  if (!data) return EndingOfData(data.error());
  if (data->parts().empty())
    return {ExitCode::kDataError, "'" + folder->string() + "' holds tasks alone: there is no text to pretrain on"};
  if (auto fits = CheckVocabulary(*data, config->training.model.shape.vocabulary); !fits) return EndingOf(fits.error());
  auto objective = MakeObjective(config->objective, data->tokenizer().pieces());
  if (!objective) return EndingOf(objective.error());
  auto batches = PretrainBatches::Create(data->parts(), *objective, config->join, config->training.batch_sequences,
                                         config->training.seed);
  if (!batches) return EndingOfData(batches.error());
  auto validation = ValidationBatches::Create(data->parts(), *objective, config->join, config->evaluation_examples);
  if (!validation) return EndingOfData(validation.error());
  auto session = TrainingSession::Open(context, config->training);
  if (!session) return EndingOf(session.error());
  const ValidationSet validation_set = MakeValidation(*data, *validation, (*session)->micro_batch());
  const Ending ending = (*session)->Train(MakeWork(*config, **session, *batches, validation_set, data->parts()));
  if (ending.code != ExitCode::kDone || !(*session)->is_first()) return ending;
  return Finish(context, **session, *config, *batches, DescribeValidation(*data, *config, *validation));
}

}  // namespace allometry::trainer
