#include "worker/trainer/exchange/huggingface.h"

#include <ATen/ATen.h>

#include <utility>

#include "arch/inventory.h"
#include "arch/switch.h"
#include "worker/trainer/engine/object_reader.h"
#include "worker/trainer/layers/position_bias.h"
#include "worker/trainer/models/switch.h"

namespace allometry::trainer {
namespace {

using common::DataLoss;
using common::InvalidArgument;
using common::Json;
using common::Result;

// What a config.json must say of things that our models have no choice of. `absent` is what transformers takes where
// the file says nothing.
struct FixedMember {
  const char* key;
  Json value;
  Json absent;
};
const std::vector<FixedMember>& FixedMembers(bool is_switch) {
  static const std::vector<FixedMember> backbone{{"relative_attention_num_buckets", kRelativeBuckets, 32},
                                                 {"relative_attention_max_distance", 128, 128},
                                                 {"layer_norm_epsilon", 1e-6, 1e-6},
                                                 {"is_encoder_decoder", true, true},
                                                 {"pad_token_id", 0, 0},
                                                 {"eos_token_id", 1, 1},
                                                 {"decoder_start_token_id", 0, 0}};
  static const std::vector<FixedMember> experts = [] {
    std::vector<FixedMember> members = backbone;
    members.insert(members.end(), {{"num_experts", arch::kSwitchExperts, 8},
                                   {"dense_act_fn", "relu", "relu"},
                                   {"router_bias", false, false},
                                   {"router_dtype", "float32", "float32"}});
    return members;
  }();
  return is_switch ? experts : backbone;
}

// Hugging Face gives experts to blocks 1, 1 + step, ... (from 0).
struct SparseStep {
  const char* placement;
  int64_t step;
};
constexpr SparseStep kSparseSteps[] = {{"huggingface", 4}, {"switch_base", 2}};

bool HasExpertsThere(int64_t step, int64_t index) { return step > 0 && (step == 1 || index % step == 1); }

bool IsGated(const ModelConfig& model) { return model.architecture == "glu"; }
bool IsSwitch(const ModelConfig& model) { return model.architecture == "switch"; }

int64_t FeedForwardWidth(const ModelConfig& model) {
  return IsGated(model) ? arch::RoundToMultipleOf8(2.0 * static_cast<double>(model.shape.d_ff) / 3.0)
                        : model.shape.d_ff;
}

common::Status CheckExportable(const ModelConfig& model) {
  const Json& options = model.options;
  if (model.architecture == "transformer") return common::Ok();
  if (IsGated(model)) {
    if (options.at("activation") == "gelu" && options.at("tied_embedding") == false) return common::Ok();
    return InvalidArgument(
        "glu with " + options.dump() +
        R"( is no model of Hugging Face's: only {"activation":"gelu","tied_embedding":false} is, as T5 v1.1)");
  }
  if (IsSwitch(model)) {
    for (const SparseStep& known : kSparseSteps)
      if (options.at("placement") == known.placement) return common::Ok();
    return InvalidArgument("switch with placement " + options.at("placement").get<std::string>() +
                           " is no model of Hugging Face's, which has experts in layers 2, 6, ... (placement "
                           "huggingface) or 2, 4, ... (switch_base)");
  }
  return InvalidArgument("Hugging Face has no model like '" + model.architecture +
                         "': what can be exported are transformer (T5 v1.0), glu with gelu and untied embeddings (T5 "
                         "v1.1), and switch with placement huggingface or switch_base (SwitchTransformers)");
}

int64_t SparseLayers(const ModelConfig& model, int64_t layers) {
  int64_t count = 0;
  for (int64_t i = 0; i < layers; ++i) count += arch::SwitchHasExperts(model.options, i);
  return count;
}

// Transformers derives the sparse steps from the numbers of sparse layers, which is right for some depths only, and
// then takes those that the file states.
void DescribeExperts(const ModelConfig& model, Json& config) {
  int64_t step = 0;
  for (const SparseStep& known : kSparseSteps)
    if (model.options.at("placement") == known.placement) step = known.step;
  config["num_sparse_encoder_layers"] = SparseLayers(model, model.shape.encoder_layers);
  config["num_sparse_decoder_layers"] = SparseLayers(model, model.shape.decoder_layers);
  config["encoder_sparse_step"] = config["decoder_sparse_step"] = step;
  config["expert_capacity"] = 64;  // of one sequence, for both stacks: the public models' value; ours has one for each
  config["router_aux_loss_coef"] = 0.01;
  config["router_z_loss_coef"] = 0.0;
}

// The members of a config.json that say which model it is. Shapes outside the limits and unknown values are mistakes.
class ConfigReader {
 public:
  explicit ConfigReader(const Json& config) : config_(WithoutNulls(config)), reader_(config_, "") {}

  int64_t Size(const char* key) { return reader_.Integer(key, {}, 1, 1 << 24); }
  int64_t Size(const char* key, int64_t fallback) { return reader_.Integer(key, fallback, 0, 1 << 24); }
  std::string Text(const char* key, const char* fallback) { return reader_.String(key, fallback); }
  // Whether the output is scaled by d^-0.5, as transformers does where it ties the embeddings. Its version 5 ties them
  // in any case and says this by a member of its own.
  bool ScalesOutput() {
    const bool tied = reader_.Boolean("tie_word_embeddings", true);
    return reader_.Boolean("scale_decoder_outputs", tied);
  }
  common::Status Finish(bool is_switch) {
    for (const auto& [key, unused] : config_.items()) reader_.Ignore(key);
    ALLO_RETURN_IF_ERROR(reader_.Finish());
    for (const FixedMember& fixed : FixedMembers(is_switch))
      if (const Json value = config_.value(fixed.key, fixed.absent); value != fixed.value)
        return InvalidArgument(std::string(fixed.key) + " is " + value.dump() + ": our models have " +
                               fixed.value.dump() + " and no choice");
    return common::Ok();
  }

 private:
  static Json WithoutNulls(const Json& config) {
    Json kept = Json::object();
    for (const auto& [key, value] : config.items())
      if (!value.is_null()) kept[key] = value;
    return kept;
  }

  Json config_;
  ObjectReader reader_;
};

Result<Json> PlacementOf(const arch::Shape& shape, int64_t encoder_step, int64_t decoder_step) {
  for (const SparseStep& known : kSparseSteps) {
    const Json options{{"placement", known.placement}};
    bool same = true;
    for (int64_t i = 0; i < shape.encoder_layers; ++i)
      same = same && HasExpertsThere(encoder_step, i) == arch::SwitchHasExperts(options, i);
    for (int64_t i = 0; i < shape.decoder_layers; ++i)
      same = same && HasExpertsThere(decoder_step, i) == arch::SwitchHasExperts(options, i);
    if (same) return options;
  }
  return InvalidArgument("the sparse steps are " + std::to_string(encoder_step) + " (encoder) and " +
                         std::to_string(decoder_step) +
                         " (decoder): our switch has experts with step 4 (placement huggingface) or 2 (switch_base) in "
                         "both stacks");
}

// As transformers derives it where the file does not say.
int64_t SparseStepOf(ConfigReader& reader, const std::string& stack, int64_t layers) {
  const int64_t sparse = reader.Size(("num_sparse_" + stack + "_layers").c_str(), 3);
  return reader.Size((stack + "_sparse_step").c_str(), sparse > 0 ? layers / sparse : layers);
}

// What our model is called, from what the feed-forward layers and the output are.
Result<Json> NameT5(ConfigReader& reader, arch::Shape& shape) {
  const std::string layers = reader.Text("feed_forward_proj", "relu");
  const bool scaled = reader.ScalesOutput();
  if (layers == "relu" && scaled) return Json{{"architecture", "transformer"}};
  if (layers == "gated-gelu" && !scaled) {
    if (shape.d_ff % 8 != 0)
      return InvalidArgument("d_ff is " + std::to_string(shape.d_ff) +
                             ": gated feed-forward layers of ours are a multiple of 8 wide");
    shape.d_ff = shape.d_ff / 2 * 3;  // ours are two thirds as wide as d_ff says
    return Json{{"architecture", "glu"}, {"options", {{"activation", "gelu"}, {"tied_embedding", false}}}};
  }
  return InvalidArgument("feed_forward_proj is '" + layers + "' and tie_word_embeddings " +
                         (scaled ? "true" : "false") +
                         ": what can be imported are relu with true (T5 v1.0) and gated-gelu with false (T5 v1.1)");
}

Result<Json> NameSwitch(ConfigReader& reader, const arch::Shape& shape) {
  if (!reader.ScalesOutput())
    return InvalidArgument("tie_word_embeddings is false: our switch has tied embeddings and no choice");
  const int64_t encoder_step = SparseStepOf(reader, "encoder", shape.encoder_layers);
  const int64_t decoder_step = SparseStepOf(reader, "decoder", shape.decoder_layers);
  ALLO_ASSIGN_OR_RETURN(const Json options, PlacementOf(shape, encoder_step, decoder_step));
  return Json{{"architecture", "switch"}, {"options", options}};
}

// The tensors of one model, under construction.
class TensorList {
 public:
  explicit TensorList(const ModelConfig& model) : model_(model), shape_(model.shape) {
    const std::vector<int64_t> table{shape_.vocabulary, shape_.d_model};
    Add("shared", table);
    if (IsGated(model)) Add("lm_head", table);
    AddStack("encoder", shape_.encoder_layers);
    AddStack("decoder", shape_.decoder_layers);
  }
  TensorShapes Take() { return std::move(shapes_); }

 private:
  void Add(const std::string& name, std::vector<int64_t> shape) { shapes_[name + ".weight"] = std::move(shape); }

  void AddStack(const std::string& stack, int64_t layers) {
    for (int64_t i = 0; i < layers; ++i) {
      const std::string block = stack + ".block." + std::to_string(i) + ".layer.";
      AddAttention(block + "0", "SelfAttention");
      if (i == 0) Add(block + "0.SelfAttention.relative_attention_bias", {kRelativeBuckets, shape_.heads});
      if (stack == "decoder") AddAttention(block + "1", "EncDecAttention");
      AddFeedForward(block + (stack == "decoder" ? "2" : "1"), i);
    }
    Add(stack + ".final_layer_norm", {shape_.d_model});
  }

  void AddAttention(const std::string& layer, const std::string& kind) {
    const int64_t inner = shape_.heads * shape_.d_kv;
    Add(layer + ".layer_norm", {shape_.d_model});
    for (const char* in : {".q", ".k", ".v"}) Add(layer + "." + kind + in, {inner, shape_.d_model});
    Add(layer + "." + kind + ".o", {shape_.d_model, inner});
  }

  void AddFeedForward(const std::string& layer, int64_t index) {
    Add(layer + ".layer_norm", {shape_.d_model});
    if (IsGated(model_)) return AddDense(layer + ".DenseReluDense", {".wi_0", ".wi_1"});
    if (!IsSwitch(model_)) return AddDense(layer + ".DenseReluDense", {".wi"});
    if (!arch::SwitchHasExperts(model_.options, index)) return AddDense(layer + ".mlp", {".wi"});
    Add(layer + ".mlp.router.classifier", {arch::kSwitchExperts, shape_.d_model});
    for (int64_t e = 0; e < arch::kSwitchExperts; ++e)
      AddDense(layer + ".mlp.experts.expert_" + std::to_string(e), {".wi"});
  }

  void AddDense(const std::string& name, const std::vector<std::string>& inner) {
    const int64_t width = FeedForwardWidth(model_);
    for (const std::string& wi : inner) Add(name + wi, {width, shape_.d_model});
    Add(name + ".wo", {shape_.d_model, width});
  }

  const ModelConfig& model_;
  const arch::Shape& shape_;
  TensorShapes shapes_;
};

std::string Text(at::IntArrayRef shape) {
  std::string text = "[";
  for (const int64_t side : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(side);
  return text + "]";
}

// Exactly the wanted tensors, as float32.
Result<Tensors> Checked(const TensorShapes& wanted, const Tensors& given) {
  Tensors out;
  for (const auto& [name, shape] : wanted) {
    const auto found = given.find(name);
    if (found == given.end()) return DataLoss("the tensor '" + name + "' is missing");
    if (found->second.sizes() != at::IntArrayRef(shape))
      return DataLoss("the tensor '" + name + "' is " + Text(found->second.sizes()) + " and should be " + Text(shape));
    if (!found->second.is_floating_point()) return DataLoss("the tensor '" + name + "' does not hold real numbers");
    out[name] = found->second.to(at::kFloat);
  }
  for (const auto& [name, tensor] : given)
    if (!wanted.contains(name))
      return DataLoss("the tensor '" + name + "' is unknown: no part of the model that the configuration describes");
  return out;
}

// Names under which Hugging Face may store the shared table again; transformers ties them, unless the output table
// differs.
constexpr const char* kTiedTables[] = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"};
// Stored with old T5 models and read by nobody.
constexpr char kUnusedTable[] = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

Result<Tensors> WithoutCopies(const TensorShapes& wanted, Tensors tensors) {
  tensors.erase(kUnusedTable);
  for (const char* name : kTiedTables) {
    const auto found = tensors.find(name);
    if (wanted.contains(name) || found == tensors.end()) continue;
    const auto shared = tensors.find("shared.weight");
    if (shared == tensors.end()) return DataLoss("the tensor 'shared.weight' is missing");
    if (!at::equal(found->second.to(at::kFloat), shared->second.to(at::kFloat)))
      return DataLoss(std::string("the tensor '") + name +
                      "' differs from 'shared.weight', to which the configuration (tie_word_embeddings) ties it");
    tensors.erase(found);
  }
  return tensors;
}

}  // namespace

Result<Json> HuggingFaceConfig(const ModelConfig& model) {
  ALLO_RETURN_IF_ERROR(CheckExportable(model));
  const bool is_switch = IsSwitch(model);
  Json config{{"architectures",
               Json::array({std::string(is_switch ? "SwitchTransformers" : "T5") + "ForConditionalGeneration"})},
              {"model_type", is_switch ? "switch_transformers" : "t5"},
              {"vocab_size", model.shape.vocabulary},
              {"d_model", model.shape.d_model},
              {"d_kv", model.shape.d_kv},
              {"d_ff", FeedForwardWidth(model)},
              {"num_layers", model.shape.encoder_layers},
              {"num_decoder_layers", model.shape.decoder_layers},
              {"num_heads", model.shape.heads},
              {"tie_word_embeddings", !IsGated(model)},
              {"torch_dtype", "float32"}};
  if (!is_switch) config["feed_forward_proj"] = IsGated(model) ? "gated-gelu" : "relu";
  for (const FixedMember& fixed : FixedMembers(is_switch)) config[fixed.key] = fixed.value;
  if (is_switch) DescribeExperts(model, config);
  return config;
}

Result<ModelConfig> ModelOfHuggingFace(const Json& config) {
  if (!config.is_object()) return InvalidArgument("the configuration is no JSON object");
  ConfigReader reader(config);
  const std::string type = reader.Text("model_type", "");
  if (type != "t5" && type != "switch_transformers")
    return InvalidArgument("model_type is '" + type + "': what can be imported are t5 and switch_transformers");
  arch::Shape shape;
  shape.encoder_layers = reader.Size("num_layers");
  shape.decoder_layers = reader.Size("num_decoder_layers", shape.encoder_layers);
  shape.d_model = reader.Size("d_model");
  shape.d_ff = reader.Size("d_ff");
  shape.heads = reader.Size("num_heads");
  shape.d_kv = reader.Size("d_kv");
  shape.vocabulary = reader.Size("vocab_size");
  auto named = type == "t5" ? NameT5(reader, shape) : NameSwitch(reader, shape);
  ALLO_RETURN_IF_ERROR(reader.Finish(type != "t5"));
  if (!named) return named.error();
  (*named)["shape"] = ShapeToJson(shape);
  return ParseModel(*named, "as a model of ours", 0);
}

TensorShapes HuggingFaceTensors(const ModelConfig& model) { return TensorList(model).Take(); }

Result<Tensors> WeightsToHuggingFace(const ModelConfig& model, const Tensors& ours) {
  ALLO_RETURN_IF_ERROR(CheckExportable(model));
  return Checked(HuggingFaceTensors(model), SplitExperts(ours));
}

Result<Tensors> WeightsFromHuggingFace(const ModelConfig& model, const Tensors& theirs) {
  const TensorShapes wanted = HuggingFaceTensors(model);
  ALLO_ASSIGN_OR_RETURN(const Tensors unique, WithoutCopies(wanted, theirs));
  ALLO_ASSIGN_OR_RETURN(const Tensors checked, Checked(wanted, unique));
  return StackExperts(checked);
}

}  // namespace allometry::trainer
