#include "worker/trainer/exchange/huggingface.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/exchange/exchange_cases.h"
#include "worker/trainer/models/switch.h"

namespace allometry::trainer {
namespace {

using common::ErrorCode;
using common::Json;
using testing::HasSubstr;

Json ConfigOf(const ModelConfig& model, const Json& changes = Json::object()) {
  Json config = *HuggingFaceConfig(model);
  config.update(changes);
  return config;
}

std::string Refusal(const Json& config) {
  const auto model = ModelOfHuggingFace(config);
  if (model) return "taken as " + model->architecture;
  EXPECT_EQ(model.error().code, ErrorCode::kInvalidArgument);
  return model.error().message;
}

TEST(HuggingFaceTest, TensorsAreThoseOfTheBuiltModel) {
  for (const ModelConfig& model : Exchangeable()) {
    TensorShapes built;
    for (const auto& [name, tensor] : SplitExperts(FreshWeights(model))) built[name] = tensor.sizes().vec();
    EXPECT_EQ(HuggingFaceTensors(model), built) << model.architecture << model.options;
  }
}

TEST(HuggingFaceTest, WeightsComeBackBitEqual) {
  for (const ModelConfig& model : Exchangeable()) {
    const Tensors ours = FreshWeights(model);
    const auto theirs = WeightsToHuggingFace(model, ours);
    ASSERT_TRUE(theirs) << theirs.error().message;
    const auto back = WeightsFromHuggingFace(model, *theirs);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_TRUE(BitEqual(*back, ours)) << model.architecture;
  }
}

TEST(HuggingFaceTest, ConfigurationsComeBackEqual) {
  for (const ModelConfig& model : Exchangeable()) {
    const auto back = ModelOfHuggingFace(ConfigOf(model));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->architecture, model.architecture);
    EXPECT_EQ(back->options, model.options);
    EXPECT_EQ(back->shape, model.shape);
  }
}

TEST(HuggingFaceTest, ExpertsAreKeptOneByOneThere) {
  const ModelConfig model = Config("switch", {{"placement", "switch_base"}});
  const Tensors ours = FreshWeights(model);
  const Tensors theirs = *WeightsToHuggingFace(model, ours);
  EXPECT_TRUE(at::equal(theirs.at("encoder.block.3.layer.1.mlp.experts.expert_31.wi.weight"),
                        ours.at("encoder.block.3.layer.1.mlp.experts.wi.weight")[31]));
}

TEST(HuggingFaceTest, OtherArchitecturesAreRefused) {
  for (const arch::Architecture* architecture : arch::Architectures()) {
    const std::string name(architecture->name());
    if (name == "transformer") continue;
    const auto config = HuggingFaceConfig(Config(name));  // with the defaults of glu and switch, too
    ASSERT_FALSE(config.ok()) << name;
    EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(config.error().message, HasSubstr(name));
  }
  for (const Json& options : {Json{{"activation", "gelu"}}, Json{{"tied_embedding", false}}})
    EXPECT_THAT(HuggingFaceConfig(Config("glu", options)).error().message, HasSubstr("T5 v1.1")) << options;
  EXPECT_THAT(HuggingFaceConfig(Config("switch")).error().message, HasSubstr("layers 2, 6, ..."));
}

TEST(HuggingFaceTest, TheLayoutOfThePublicSwitchModels) {
  Json config = ConfigOf(Config("switch", {{"placement", "huggingface"}}, {12, 12, 8, 24, 2, 3, 40}));
  for (const char* key : {"encoder_sparse_step", "decoder_sparse_step"}) config.erase(key);
  EXPECT_EQ(ModelOfHuggingFace(config)->options.at("placement"), "huggingface");  // 12 layers, 3 of them sparse
  config["num_sparse_encoder_layers"] = config["num_sparse_decoder_layers"] = 6;
  EXPECT_EQ(ModelOfHuggingFace(config)->options.at("placement"), "switch_base");
  config["num_sparse_decoder_layers"] = 3;
  EXPECT_THAT(Refusal(config), HasSubstr("sparse steps are 2 (encoder) and 4"));
}

TEST(HuggingFaceTest, OlderAndNewerConfigurations) {
  Json small = ConfigOf(T5());
  for (const char* key : {"feed_forward_proj", "tie_word_embeddings", "eos_token_id"}) small.erase(key);
  small["num_decoder_layers"] = nullptr;
  EXPECT_EQ(ModelOfHuggingFace(small)->architecture, "transformer");
  EXPECT_EQ(ModelOfHuggingFace(small)->shape.decoder_layers, kSmallShape.encoder_layers);
  // Version 5 ties all tables and says by another member what an untied one meant.
  const Json newer = ConfigOf(T5v11(), {{"tie_word_embeddings", true}, {"scale_decoder_outputs", false}});
  EXPECT_EQ(ModelOfHuggingFace(newer)->architecture, "glu");
}

TEST(HuggingFaceTest, ConfigurationsThatWeDoNotHaveAreRefused) {
  EXPECT_THAT(Refusal(Json::array()), HasSubstr("no JSON object"));
  EXPECT_THAT(Refusal({{"model_type", "bert"}}), HasSubstr("model_type is 'bert'"));
  EXPECT_THAT(Refusal(ConfigOf(T5(), {{"d_kv", nullptr}})), HasSubstr("d_kv"));
  EXPECT_THAT(Refusal(ConfigOf(T5(), {{"d_model", "wide"}})), HasSubstr("d_model"));
  EXPECT_THAT(Refusal(ConfigOf(T5(), {{"tie_word_embeddings", false}})), HasSubstr("T5 v1.1"));
  EXPECT_THAT(Refusal(ConfigOf(T5(), {{"relative_attention_num_buckets", 64}})), HasSubstr("is 64"));
  EXPECT_THAT(Refusal(ConfigOf(T5v11(), {{"feed_forward_proj", "gated-silu"}})), HasSubstr("gated-silu"));
  EXPECT_THAT(Refusal(ConfigOf(T5v11(), {{"d_ff", 20}})), HasSubstr("multiple of 8"));
  const ModelConfig experts = Config("switch", {{"placement", "huggingface"}});
  EXPECT_THAT(Refusal(ConfigOf(experts, {{"num_experts", 8}})), HasSubstr("num_experts is 8"));
  EXPECT_THAT(Refusal(ConfigOf(experts, {{"num_experts", nullptr}})), HasSubstr("num_experts is 8"));
  EXPECT_THAT(Refusal(ConfigOf(experts, {{"router_bias", true}})), HasSubstr("router_bias"));
  EXPECT_THAT(Refusal(ConfigOf(experts, {{"encoder_sparse_step", 3}})), HasSubstr("sparse steps are 3"));
}

class DamagedTensorsTest : public testing::Test {
 protected:
  std::string Refused() {
    const auto read = WeightsFromHuggingFace(model_, tensors_);
    if (read) return "taken";
    EXPECT_EQ(read.error().code, ErrorCode::kDataLoss);
    return read.error().message;
  }

  ModelConfig model_ = T5();
  Tensors tensors_ = *WeightsToHuggingFace(model_, FreshWeights(model_));
};

TEST_F(DamagedTensorsTest, AreNamed) {
  const std::string name = "encoder.block.5.layer.1.DenseReluDense.wo.weight";
  const at::Tensor whole = tensors_.at(name);
  tensors_[name] = whole.t();
  EXPECT_THAT(Refused(), HasSubstr(name + "' is [24, 8] and should be [8, 24]"));
  tensors_[name] = whole.to(at::kLong);
  EXPECT_THAT(Refused(), HasSubstr(name));
  tensors_.erase(name);
  EXPECT_THAT(Refused(), HasSubstr(name + "' is missing"));
  tensors_[name] = whole;
  tensors_["encoder.block.6.layer.0.layer_norm.weight"] = at::ones({8});
  EXPECT_THAT(Refused(), HasSubstr("block.6.layer.0.layer_norm.weight' is unknown"));
}

TEST_F(DamagedTensorsTest, CopiesOfTheTableAreCopies) {
  const Tensors plain = *WeightsFromHuggingFace(model_, tensors_);
  for (const char* name : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"})
    tensors_[name] = tensors_.at("shared.weight").clone();
  tensors_["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = at::zeros({32, 2});
  EXPECT_TRUE(BitEqual(*WeightsFromHuggingFace(model_, tensors_), plain));
  tensors_["lm_head.weight"] += 1;
  EXPECT_THAT(Refused(), HasSubstr("'lm_head.weight' differs"));
}

TEST_F(DamagedTensorsTest, HalvesBecomeFloats) {
  for (auto& [name, tensor] : tensors_) tensor = tensor.to(at::kBFloat16);
  const auto read = WeightsFromHuggingFace(model_, tensors_);
  ASSERT_TRUE(read) << read.error().message;
  for (const auto& [name, tensor] : *read) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
    EXPECT_TRUE(at::equal(tensor, tensors_.at(name).to(at::kFloat))) << name;
  }
}

TEST_F(DamagedTensorsTest, UntiedModelsNeedTheirOutputTable) {
  model_ = T5v11();
  tensors_ = *WeightsToHuggingFace(model_, FreshWeights(model_));
  tensors_.erase("lm_head.weight");
  EXPECT_THAT(Refused(), HasSubstr("'lm_head.weight' is missing"));
}

}  // namespace
}  // namespace allometry::trainer
