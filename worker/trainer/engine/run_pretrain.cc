#include <ATen/ATen.h>

#include <algorithm>

#include "worker/trainer/data/batches.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/engine/run_kinds.h"
#include "worker/trainer/engine/validation.h"

namespace allometry::trainer {
namespace {

using common::Json;

constexpr int64_t kValidationRows = 32;

// A batch in the exact lengths of span corruption, so nothing is padded; `fill` is given its two arrays.
template <typename Fill>
HostBatch MakeBatch(const arch::SpanCorruptionLengths& lengths, int64_t rows, Fill fill) {
  HostBatch batch{at::empty({rows, lengths.inputs}, at::kLong), at::empty({rows, lengths.targets}, at::kLong),
                  rows * lengths.targets};
  fill(lengths.inputs, lengths.targets, batch.inputs_bs.mutable_data_ptr<int64_t>(),
       batch.targets_bt.mutable_data_ptr<int64_t>());
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

// The swapped loss costs another pass, so only the last evaluation has it.
std::optional<Evaluation> Evaluate(ModelState& state, const at::Device& device, const ValidationSet& validation,
                                   bool last) {
  const auto sums = Validate(state, device, validation);
  if (!sums) return std::nullopt;
  Evaluation evaluation{-sums->loss(),
                        {{"valid/loss", sums->loss()}, {"valid/text_loss", sums->text_loss()}},
                        Json{{"unigram_loss", sums->unigram_loss()}}};
  if (!last) return evaluation;
  const auto swapped = Validate(state, device, validation, ValidationInputs::kOfAnotherRow);
  if (!swapped) return std::nullopt;
  evaluation.detail["swapped_inputs_loss"] = swapped->loss();
  return evaluation;
}

LoopWork MakeWork(const PretrainConfig& config, const TrainingSession& session, const PretrainBatches& batches,
                  const ValidationSet& validation) {
  LoopWork work;
  work.make_batch = [&batches, rows = config.training.batch_sequences](int64_t step) {
    return MakeBatch(batches.lengths(), rows,
                     [&](int64_t inputs_width, int64_t targets_width, int64_t* in, int64_t* out) {
                       batches.Fill(step - 1, 0, rows, inputs_width, targets_width, in, out);
                     });
  };
  work.evaluate = [&session, &validation](ModelState& state, bool last) {
    return Evaluate(state, session.device(), validation, last);
  };
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
    return MakeBatch(batches.lengths(), rows,
                     [&](int64_t inputs_width, int64_t targets_width, int64_t* in, int64_t* out) {
                       batches.Fill(first, rows, inputs_width, targets_width, in, out);
                     });
  };
  set.is_text = data.IsText();
  set.unigram_nll = data.unigram_nll();
  return set;
}

Ending Finish(const RunContext& context, const TrainingSession& session, const PretrainConfig& config,
              const PretrainBatches& batches, int64_t validation_examples) {
  const arch::Lengths lengths{batches.lengths().inputs, batches.lengths().targets};
  std::map<std::string, double> metrics = session.Metrics(lengths);
  const Evaluation& evaluation = session.summary().final;
  metrics["validation_loss"] = evaluation.values.at("valid/loss");
  metrics["text_loss"] = evaluation.values.at("valid/text_loss");
  for (const char* name : {"unigram_loss", "swapped_inputs_loss"})
    metrics[name] = evaluation.detail.at(name).get<double>();
  auto outputs = session.WriteModel();
  if (!outputs) return {ExitCode::kCrash, outputs.error().message};
  Json report = session.Report();
  report["input_length"] = lengths.inputs;
  report["target_length"] = lengths.targets;
  report["epochs"] = batches.Epochs(config.training.steps);
  report["validation_examples"] = validation_examples;
  return WriteResult(context, metrics, Json::array(), *outputs, report);
}

Ending EndingOfData(const common::Error& error) { return {ExitCodeOfDataError(error), error.message}; }

}  // namespace

Ending RunPretrain(const RunContext& context) {
  auto config = ParsePretrain(context.config.run);
  if (!config) return EndingOf(config.error());
  auto folder = InputFolder(context, "data");
  if (!folder) return EndingOf(folder.error());
  auto data = Dataset::Open(*folder);
  if (!data) return EndingOfData(data.error());
  if (auto fits = CheckVocabulary(*data, config->training.model.shape.vocabulary); !fits) return EndingOf(fits.error());
  auto batches = PretrainBatches::Create(*data, config->input_length, config->noise_density, config->mean_span_length,
                                         config->training.batch_sequences, config->training.seed);
  if (!batches) return EndingOfData(batches.error());
  auto validation = ValidationBatches::Create(*data, config->input_length, config->noise_density,
                                              config->mean_span_length, config->evaluation_examples);
  if (!validation) return EndingOfData(validation.error());
  auto session = TrainingSession::Open(context, config->training);
  if (!session) return EndingOf(session.error());
  const ValidationSet validation_set = MakeValidation(*data, *validation, (*session)->micro_batch());
  const Ending ending = (*session)->Train(MakeWork(*config, **session, *batches, validation_set));
  if (ending.code != ExitCode::kDone) return ending;
  return Finish(context, **session, *config, *batches, validation->size());
}

}  // namespace allometry::trainer
