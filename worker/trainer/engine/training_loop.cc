#include "worker/trainer/engine/training_loop.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>

#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/stop_signal.h"

namespace allometry::trainer {
namespace {

using common::Json;

constexpr double kProgressEverySeconds = 0.5;
constexpr size_t kBatchesAhead = 4;
constexpr double kLeastPeriods = 20;  // of what a checkpoint keeps training from, between two

int64_t LogEvery(int64_t asked, int64_t steps) { return asked > 0 ? asked : std::clamp<int64_t>(steps / 100, 1, 100); }

Ending CrashOf(const common::Error& error) { return {ExitCode::kCrash, error.message}; }

std::map<std::string, at::Tensor> Prefixed(const std::string& prefix,
                                           const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, tensor] : tensors) out[prefix + name] = tensor;
  return out;
}

std::map<std::string, at::Tensor> WithPrefix(const std::string& prefix,
                                             const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, tensor] : tensors)
    if (name.rfind(prefix, 0) == 0) out[name.substr(prefix.size())] = tensor;
  return out;
}

Json EvaluationToJson(const Evaluation& evaluation) {
  return {{"score", evaluation.score}, {"values", evaluation.values}, {"detail", evaluation.detail}};
}

Evaluation EvaluationFromJson(const Json& json) {
  return {json.at("score").get<double>(), json.at("values").get<std::map<std::string, double>>(), json.at("detail")};
}

// Scalars, wherever they lie, in one transfer.
std::vector<double> ToDoubles(const std::vector<at::Tensor>& scalars) {
  if (scalars.empty()) return {};
  std::vector<at::Tensor> wide;
  for (const at::Tensor& scalar : scalars) wide.push_back(scalar.to(at::kDouble).reshape({}));
  const at::Tensor all = at::stack(wide).cpu();
  return {all.const_data_ptr<double>(), all.const_data_ptr<double>() + all.numel()};
}

// Warm-up in which a spike raises no alarm. A constant schedule has none to speak of, and one that is longer than the
// run must not hide that it blows up.
int64_t QuietSteps(const Schedule& schedule, int64_t steps) {
  const bool warms_up = schedule.name != "constant" || schedule.warmup == "linear";
  return warms_up ? std::min(schedule.warmup_steps, steps / 10) : 0;
}

}  // namespace

TrainingLoop::TrainingLoop(LoopParts parts, LoopWork work)
    : parts_(std::move(parts)),
      work_(std::move(work)),
      detector_(parts_.config.divergence.loss_spike, parts_.config.divergence.window_steps,
                QuietSteps(parts_.config.optimization.schedule, parts_.config.steps)),
      training_step_({.config = parts_.config,
                      .device = parts_.device,
                      .state = parts_.state,
                      .optimizer = parts_.optimizer,
                      .group = parts_.group,
                      .sharded = parts_.sharded,
                      .micro_batch = parts_.micro_batch > 0             ? parts_.micro_batch
                                     : parts_.execution.micro_batch > 0 ? parts_.execution.micro_batch
                                                                        : parts_.config.batch_sequences,
                      .may_recompute = parts_.execution.activation_checkpointing.value_or(true),
                      .graphs = parts_.graphs}),
      log_every_(LogEvery(parts_.execution.log_every, parts_.config.steps)),
      evaluate_every_(parts_.config.evaluate_every_steps),
      writer_(
          parts_.checkpoints, parts_.device,
          [this](int64_t step, const std::filesystem::path& folder) { return TellCheckpoint(step, folder); },
          [this] {
            if (parts_.group) parts_.group->tensors().Check();
          }) {
  if (work_.select_best && evaluate_every_ == 0) evaluate_every_ = std::max<int64_t>(1, parts_.config.steps / 10);
}

Ending TrainingLoop::Run() {
  try {
    return RunToAnEnd();
  } catch (const std::exception& e) {
    if (IsOutOfMemory(e)) TellWhatDidNotFit();
    throw;
  }
}

// The next attempt begins with half of it.
void TrainingLoop::TellWhatDidNotFit() {
  const auto told = parts_.events.Write({{"event", "out_of_memory"}, {"micro_batch", training_step_.micro_batch()}});
  if (!told) std::fprintf(stderr, "%s\n", told.error().message.c_str());
}

Ending TrainingLoop::RunToAnEnd() {
  if (auto ending = Resume()) return *ending;
  if (auto ending = WriteStart()) return *ending;
  last_checkpoint_ = last_progress_ = Clock::now();
  progress_step_ = step_;
  parts_.state.model().train();
  // A graph cannot be recorded on a device's default stream.
  const SideStream stream(parts_.device, SideStream::Priority::kNormal);
  const OnStream on_stream(stream);
  if (!IsOver()) {
    BatchPump pump(PinnedFor(parts_.device, work_.make_batch), step_ + 1, parts_.config.steps, kBatchesAhead);
    DeviceBatches batches(pump, parts_.config.steps - step_, parts_.device, parts_.group);
    agreed_ = Agree();
    while (!IsOver()) {
      if (agreed_.stop || (!parts_.group && StopRequested())) return Stop();
      const auto start = Clock::now();
      const double waited = pump.wait_seconds(), stood_still = summary_.checkpoint_seconds;
      TakeStep(batches);
      summary_.data_wait_seconds += pump.wait_seconds() - waited;
      auto ending = ReadLosses(/*always=*/false);
      summary_.device_seconds += SecondsSince(start) - (summary_.checkpoint_seconds - stood_still);
      if (!ending) ending = AfterStep();
      if (ending) return *ending;
    }
  }
  if (auto ending = EvaluateNow(/*last=*/true)) return *ending;
  if (auto ending = FinishCheckpoint()) return *ending;
  parts_.state.MakeWholeForGood();
  LeaveTogether();
  if (auto ending = SelectWeights()) return *ending;
  return work_.finish ? FinishWork() : Ending{};
}

// What the last exchange has brought on a device may be on its way yet, and a rank that is gone ends it for the others.
void TrainingLoop::LeaveTogether() const {
  if (!parts_.group) return;
  ToDoubles({at::zeros({}, parts_.device)});  // waits for the device
  parts_.group->tensors().Check();
  parts_.group->All(true);
}

// The checkpoint that a stop leaves here holds the selected weights as the last ones: no step goes on from them.
Ending TrainingLoop::FinishWork() {
  parts_.state.model().eval();
  bool finished = false;
  if (!parts_.group) {
    finished = work_.finish(parts_.state);
  } else {
    finished = parts_.group->FirstComputes([this] { return work_.finish(parts_.state) ? "finished" : "stopped"; }) ==
               "finished";
  }
  return finished ? Ending{} : Stop();
}

TrainingLoop::Agreement TrainingLoop::Agree() {
  const bool due = is_first() && CheckpointIsDue();
  if (!parts_.group) return {StopRequested(), due};
  parts_.group->tensors().Check();
  const std::vector<double> votes = parts_.group->Sum({StopRequested() ? 1.0 : 0.0, due ? 1.0 : 0.0});
  return {votes[0] > 0, votes[1] > 0};
}

// Rank 0 reads the checkpoint and tells the others.
std::optional<Checkpoint> TrainingLoop::LoadCheckpoint() {
  std::optional<Checkpoint> checkpoint;
  if (is_first()) checkpoint = parts_.checkpoints.LoadNewest(parts_.execution.resume);
  if (!parts_.group) return checkpoint;
  const Json told = checkpoint ? Json{{"step", checkpoint->step}, {"state", checkpoint->state}} : Json();
  const Json heard = Json::parse(parts_.group->FromFirst(told.dump()));
  if (heard.is_null()) return std::nullopt;
  auto tensors = parts_.group->FromFirst(checkpoint ? std::move(checkpoint->tensors) : decltype(checkpoint->tensors)());
  return Checkpoint{heard.at("step").get<int64_t>(), std::move(tensors), heard.at("state")};
}

std::optional<Ending> TrainingLoop::Resume() {
  auto checkpoint = LoadCheckpoint();
  if (!checkpoint) return std::nullopt;
  try {
    auto weights = parts_.state.LoadWeights(WithPrefix("weights/", checkpoint->tensors));
    if (!weights) return CrashOf(weights.error());
    auto optimizer = parts_.optimizer.LoadState(WithPrefix("optimizer/", checkpoint->tensors));
    if (!optimizer) return CrashOf(optimizer.error());
    RestoreCheckpoint(*checkpoint);
  } catch (const Json::exception& e) {
    return Ending{ExitCode::kCrash, std::string("the checkpoint's state is malformed: ") + e.what()};
  }
  return std::nullopt;
}

void TrainingLoop::RestoreCheckpoint(const Checkpoint& checkpoint) {
  const Json& state = checkpoint.state;
  step_ = read_step_ = summary_.resumed_step = last_checkpoint_step_ = checkpoint.step;
  summary_.device_seconds = state.at("device_seconds").get<double>();
  summary_.data_wait_seconds = state.at("data_wait_seconds").get<double>();
  summary_.target_tokens = state.at("target_tokens").get<int64_t>();
  interval_loss_ = state.at("interval_loss").get<double>();
  interval_steps_ = state.at("interval_steps").get<int64_t>();
  interval_means_ = state.value("interval_means", decltype(interval_means_)());
  last_loss_ = state.at("last_loss").get<double>();
  evaluated_step_ = state.at("evaluated_step").get<int64_t>();
  detector_.FromJson(state.at("divergence"));
  if (state.contains("last_evaluation")) last_evaluation_ = EvaluationFromJson(state["last_evaluation"]);
  if (state.contains("best_evaluation")) {
    best_evaluation_ = EvaluationFromJson(state["best_evaluation"]);
    best_step_ = state.at("best_step").get<int64_t>();
    best_weights_ = WithPrefix("best/", checkpoint.tensors);
  }
}

Json TrainingLoop::StateToJson() const {
  Json state{{"device_seconds", summary_.device_seconds},
             {"data_wait_seconds", summary_.data_wait_seconds},
             {"target_tokens", summary_.target_tokens},
             {"interval_loss", interval_loss_},
             {"interval_steps", interval_steps_},
             {"interval_means", interval_means_},
             {"last_loss", last_loss_},
             {"evaluated_step", evaluated_step_},
             {"divergence", detector_.ToJson()}};
  if (last_evaluation_) state["last_evaluation"] = EvaluationToJson(*last_evaluation_);
  if (best_evaluation_) {
    state["best_evaluation"] = EvaluationToJson(*best_evaluation_);
    state["best_step"] = best_step_;
  }
  return state;
}

std::optional<Ending> TrainingLoop::WriteStart() {
  const Json event{{"event", "start"},
                   {"device", parts_.execution.device},
                   {"precision", parts_.precision},
                   {"resumed_step", summary_.resumed_step},
                   {"provenance", Provenance(parts_.execution.device, parts_.execution.threads)}};
  if (auto written = parts_.events.Write(event); !written) return CrashOf(written.error());
  if (summary_.resumed_step > 0)
    std::fprintf(stderr, "resumed from the checkpoint of step %lld\n", static_cast<long long>(summary_.resumed_step));
  return std::nullopt;
}

void TrainingLoop::TakeStep(DeviceBatches& batches) {
  const DeviceBatch batch = batches.Next();
  ++step_;
  StepResult result = training_step_.Take(step_, batch, IsLogStep(),
                                          {[this] { HoldForCheckpoint(); }, [&batches] { batches.Prefetch(); }});
  summary_.micro_batch = training_step_.micro_batch();
  summary_.graph_launches = training_step_.graph_launches();
  summary_.target_tokens += batch.target_tokens;
  unread_losses_.push_back(std::move(result.loss));
  unread_means_.push_back(std::move(result.means));
  unread_norm_ = std::move(result.gradient_norm);
}

// A CPU's losses are read at once; a GPU is only asked when something depends on them, so that it never idles.
std::optional<Ending> TrainingLoop::ReadLosses(bool always) {
  const bool stops = !parts_.group && StopRequested();
  if (!always && !parts_.device.is_cpu() && !IsLogStep() && !stops) return std::nullopt;
  const std::vector<double> values = UnreadValues();
  if (unread_norm_.defined()) gradient_norm_ = unread_norm_.item<double>();
  size_t next = 0;
  for (size_t i = 0; i < unread_losses_.size(); ++i) {
    last_loss_ = values[next++];
    interval_loss_ += last_loss_;
    ++interval_steps_;
    for (const auto& [name, unused] : unread_means_[i]) {
      auto& [sum, count] = interval_means_[name];
      sum += values[next++];
      count += values[next++];
    }
    if (auto reason = detector_.Observe(++read_step_, last_loss_)) {
      WriteMetrics();
      WriteProgress(/*always=*/true);
      return Ending{ExitCode::kDiverged, *reason};
    }
  }
  unread_losses_.clear();
  unread_means_.clear();
  return std::nullopt;
}

// Of each unread step the loss, then the sum and count of each mean, over all ranks.
std::vector<double> TrainingLoop::UnreadValues() const {
  std::vector<at::Tensor> scalars;
  for (size_t i = 0; i < unread_losses_.size(); ++i) {
    scalars.push_back(unread_losses_[i]);
    for (const auto& [name, mean] : unread_means_[i]) {
      scalars.push_back(mean.sum);
      scalars.push_back(mean.count);
    }
  }
  std::vector<double> values = ToDoubles(scalars);
  if (parts_.group) parts_.group->tensors().Check();  // what an exchange left that was aborted is no loss
  return parts_.group ? parts_.group->Sum(std::move(values)) : values;
}

std::optional<Ending> TrainingLoop::AfterStep() {
  if (IsLogStep())
    if (auto ending = WriteMetrics()) return ending;
  if (auto ending = WriteProgress(step_ == parts_.config.steps)) return ending;
  if (IsEvaluationStep())
    if (auto ending = EvaluateNow(/*last=*/false)) return ending;
  if (writer_.has_ended())
    if (auto ending = FinishCheckpoint()) return ending;
  agreed_ = Agree();
  if (agreed_.checkpoint) return SaveCheckpoint();
  return std::nullopt;
}

bool TrainingLoop::IsEvaluationStep() const {
  return evaluate_every_ > 0 && step_ % evaluate_every_ == 0 && step_ < parts_.config.steps;
}

bool TrainingLoop::IsOver() const {
  if (step_ >= parts_.config.steps) return true;
  return work_.early_stop > 0 && best_evaluation_ && evaluated_step_ == step_ &&
         step_ - best_step_ >= work_.early_stop * evaluate_every_;
}

std::optional<Ending> TrainingLoop::WriteMetrics() {
  if (interval_steps_ == 0) return std::nullopt;
  std::map<std::string, double> values{{"train/loss", interval_loss_ / static_cast<double>(interval_steps_)},
                                       {"train/learning_rate", parts_.config.optimization.schedule.RateAt(step_)},
                                       {"train/grad_norm", gradient_norm_}};
  for (const auto& [name, mean] : interval_means_) values["train/" + name] = mean.first / std::max(mean.second, 1.0);
  auto written = parts_.events.Metric(step_, values);
  interval_loss_ = 0;
  interval_steps_ = 0;
  interval_means_.clear();
  if (!written) return CrashOf(written.error());
  return std::nullopt;
}

std::optional<Ending> TrainingLoop::WriteProgress(bool always) {
  const double seconds = SecondsSince(last_progress_);
  if (!always && seconds < kProgressEverySeconds) return std::nullopt;
  const double tokens = static_cast<double>(step_ - progress_step_) *
                        static_cast<double>(parts_.config.batch_sequences) * static_cast<double>(work_.input_length);
  last_progress_ = Clock::now();
  progress_step_ = step_;
  auto written = parts_.events.Write({{"event", "progress"},
                                      {"step", step_},
                                      {"steps", parts_.config.steps},
                                      {"loss", NumberToJson(last_loss_)},
                                      {"tokens_per_second", seconds > 0 ? tokens / seconds : 0.0}});
  if (!written) return CrashOf(written.error());
  return std::nullopt;
}

std::optional<Ending> TrainingLoop::EvaluateNow(bool last) {
  if (last && evaluated_step_ == step_ && last_evaluation_) return std::nullopt;
  parts_.state.model().eval();
  std::optional<Evaluation> evaluation = Evaluate(last);
  parts_.state.model().train();
  if (!evaluation) return Stop();
  if (!evaluation->values.empty())
    if (auto written = parts_.events.Metric(step_, evaluation->values); !written) return CrashOf(written.error());
  evaluated_step_ = step_;
  last_evaluation_ = evaluation;
  if (work_.select_best && (!best_evaluation_ || evaluation->score > best_evaluation_->score)) {
    best_evaluation_ = evaluation;
    best_step_ = step_;
    best_weights_.clear();
    const auto weights = parts_.state.Weights();  // of all ranks
    if (is_first())
      for (const auto& [name, tensor] : weights) best_weights_[name] = tensor.detach().clone();
  }
  last_progress_ = Clock::now();
  return std::nullopt;
}

std::optional<Evaluation> TrainingLoop::Evaluate(bool last) {
  parts_.state.MakeWhole();
  std::optional<Evaluation> evaluation = EvaluateWhole(last);
  parts_.state.MakeDivided();
  return evaluation;
}

std::optional<Evaluation> TrainingLoop::EvaluateWhole(bool last) {
  if (!parts_.group || work_.evaluates_together) return work_.evaluate(parts_.state, last);
  const Json heard = Json::parse(parts_.group->FirstComputes([&] {
    const auto evaluation = work_.evaluate(parts_.state, last);
    return evaluation ? EvaluationToJson(*evaluation).dump() : "null";
  }));
  if (heard.is_null()) return std::nullopt;
  return EvaluationFromJson(heard);
}

// The period is counted from when the last one stood, so that none waits for the one before it; without a period every
// step has one. Where states are gathered from other ranks training stands still meanwhile: for a twentieth of it at
// most.
bool TrainingLoop::CheckpointIsDue() const {
  const double asked = parts_.execution.checkpoint_interval_s;
  const double period = asked == 0 ? 0 : std::max(asked, kLeastPeriods * stood_still_);
  return period == 0 || (!writer_.busy() && SecondsSince(last_checkpoint_) >= period);
}

std::optional<Ending> TrainingLoop::SaveCheckpoint() {
  if (auto ending = ReadLosses(/*always=*/true)) return ending;
  if (auto ending = FinishCheckpoint()) return ending;
  const auto start = Clock::now();
  const std::map<std::string, at::Tensor> optimizer_state = parts_.optimizer.State(), weights = parts_.state.Weights();
  last_checkpoint_step_ = step_;
  if (!is_first()) return std::nullopt;
  Checkpoint checkpoint{step_, Prefixed("weights/", weights), StateToJson()};
  checkpoint.tensors.merge(Prefixed("optimizer/", optimizer_state));
  checkpoint.tensors.merge(Prefixed("best/", best_weights_));
  auto started = writer_.Start(std::move(checkpoint));
  if (started && GathersState()) writer_.WaitUntilRead();
  stood_still_ = SecondsSince(start);
  summary_.checkpoint_seconds += stood_still_;
  if (!started) return CrashOf(started.error());
  return std::nullopt;
}

// Whether rank 0 makes a second copy for a checkpoint, of what is divided among the ranks: one that must be gone before
// the next step needs the memory.
bool TrainingLoop::GathersState() const {
  bool gathers = parts_.sharded;
  for (size_t i = 0; i < parts_.state.masters().size(); ++i) gathers |= parts_.state.IsDivided(i);
  return gathers;
}

std::optional<Ending> TrainingLoop::FinishCheckpoint() {
  const auto start = Clock::now();
  const common::Status finished = writer_.Finish();
  last_checkpoint_ = Clock::now();
  summary_.checkpoint_seconds += SecondsSince(start);
  if (!finished) return CrashOf(finished.error());
  return std::nullopt;
}

void TrainingLoop::HoldForCheckpoint() {
  const auto start = Clock::now();
  writer_.HoldTraining();
  summary_.checkpoint_seconds += SecondsSince(start);
}

common::Status TrainingLoop::TellCheckpoint(int64_t step, const std::filesystem::path& folder) const {
  const std::filesystem::path path = std::filesystem::relative(folder, parts_.run_directory);
  return parts_.events.Write({{"event", "checkpoint"}, {"step", step}, {"path", path.string()}});
}

// Before the first step there is nothing to keep, and a checkpoint that stands already is not written again.
Ending TrainingLoop::Stop() {
  if (step_ > 0 && last_checkpoint_step_ != step_)
    if (auto ending = SaveCheckpoint()) return *ending;
  if (auto ending = FinishCheckpoint()) return *ending;
  LeaveTogether();
  WriteProgress(/*always=*/true);
  return {ExitCode::kStopped, "stopped on request after step " + std::to_string(step_)};
}

std::optional<Ending> TrainingLoop::SelectWeights() {
  summary_.final = *last_evaluation_;
  summary_.steps = summary_.selected_step = step_;
  if (!work_.select_best || best_step_ == step_) return std::nullopt;
  summary_.final = *best_evaluation_;
  summary_.selected_step = best_step_;
  if (!is_first()) return std::nullopt;  // only rank 0 uses them
  if (auto loaded = parts_.state.LoadWeights(best_weights_); !loaded) return CrashOf(loaded.error());
  return std::nullopt;
}

double TrainingLoop::SecondsSince(Clock::time_point start) const {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace allometry::trainer
