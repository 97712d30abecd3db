#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/architecture.h"

namespace allometry::arch {
namespace {

using common::Json;
using ::testing::HasSubstr;

TEST(ArchRegistry, NamesTheNearestArchitectureAndSize) {
  EXPECT_THAT(FindArchitecture("transfomer").error().message, HasSubstr("did you mean 'transformer'"));
  EXPECT_THAT(FindSize("smal").error().message, HasSubstr("did you mean 'small'"));
}

TEST(ArchRegistry, EveryArchitectureTakesEverySizeOfTheGrid) {
  for (const Architecture* a : Architectures())
    for (const Size& size : Sizes())
      EXPECT_TRUE(a->CheckShape(size.shape, *CompleteOptions(*a, nullptr)).ok()) << a->name() << ' ' << size.name;
}

TEST(ArchRegistry, ImpossibleShapesAreNamed) {
  for (const Architecture* a : Architectures()) {
    Shape shape = *FindSize("nano");
    shape.heads = 0;
    auto status = a->CheckShape(shape, *CompleteOptions(*a, nullptr));
    ASSERT_FALSE(status.ok()) << a->name();
    EXPECT_THAT(status.error().message, HasSubstr("heads is 0"));
  }
}

TEST(ArchOptions, DefaultsAreFilledIn) {
  const Json options = *CompleteOptions(**FindArchitecture("glu"), Json{{"activation", "silu"}});
  EXPECT_EQ(options, Json({{"activation", "silu"}, {"tied_embedding", true}}));
}

TEST(ArchOptions, MistakesNameWhatIsAllowed) {
  const auto message = [](const char* architecture, const Json& given) {
    return CompleteOptions(**FindArchitecture(architecture), given).error().message;
  };
  EXPECT_THAT(message("glu", {{"activatoin", "gelu"}}), HasSubstr("did you mean 'activation'"));
  EXPECT_THAT(message("glu", {{"activation", "tanh"}}), HasSubstr("one of sigmoid gelu silu relu"));
  EXPECT_THAT(message("glu", {{"tied_embedding", 1}}), HasSubstr("true or false"));
  EXPECT_THAT(message("albert", {{"factor", 1.5}}), HasSubstr("an integer from"));
  EXPECT_THAT(message("albert", {{"factor", -2}}), HasSubstr("an integer from"));
  EXPECT_THAT(message("transformer", {{"x", 1}}), HasSubstr("it takes none"));
}

TEST(ArchOptions, AWholeNumberInAnyNotationIsAnInteger) {
  const Json options = *CompleteOptions(**FindArchitecture("albert"), Json{{"factor", 64.0}});
  EXPECT_TRUE(options.at("factor").is_number_integer());
  EXPECT_EQ(options.at("factor"), 64);
}

TEST(ArchOptions, WhatIsBuiltForALengthGetsTheRecipes) {
  const Architecture &mixer = **FindArchitecture("mixer"), &glu = **FindArchitecture("glu");
  EXPECT_EQ(WithRecipeLengths(mixer, nullptr, {128, 29}), Json({{"input_length", 128}, {"target_length", 29}}));
  EXPECT_EQ(WithRecipeLengths(mixer, {{"input_length", 64}}, {128, 29}).at("input_length"), 64);
  EXPECT_EQ(WithRecipeLengths(glu, {{"activation", "relu"}}, {128, 29}), Json({{"activation", "relu"}}));
}

TEST(ArchOptions, LongestLengthsAreTheMixersOwn) {
  const Architecture &mixer = **FindArchitecture("mixer"), &glu = **FindArchitecture("glu");
  const Json attention = *CompleteOptions(mixer, {{"input_length", 64}});
  EXPECT_EQ(mixer.LongestLengths(attention).inputs, 64);
  EXPECT_GT(mixer.LongestLengths(attention).targets, 1 << 30);
  EXPECT_EQ(mixer.LongestLengths(*CompleteOptions(mixer, {{"decoder", "causal_mixing"}})).targets, 114);
  EXPECT_GT(glu.LongestLengths(*CompleteOptions(glu, nullptr)).inputs, 1 << 30);
}

TEST(ArchOptions, DconvKernelsMustDivideTheWidthAndMixersWidthIsEven) {
  const Architecture &dconv = **FindArchitecture("dconv"), &mixer = **FindArchitecture("mixer");
  EXPECT_FALSE(dconv.CheckShape(*FindSize("nano"), *CompleteOptions(dconv, Json{{"heads", 7}})).ok());
  EXPECT_TRUE(dconv.CheckShape(*FindSize("nano"), *CompleteOptions(dconv, Json{{"heads", 8}})).ok());
  Shape shape = *FindSize("nano");
  shape.d_model = 65;
  EXPECT_THAT(mixer.CheckShape(shape, *CompleteOptions(mixer, nullptr)).error().message, HasSubstr("an even one"));
}

TEST(ArchOptions, EvolvedNamesTheShapesItTakes) {
  const Architecture& evolved = **FindArchitecture("evolved");
  const auto message = [&](const Shape& shape, const Json& given) {
    return evolved.CheckShape(shape, *CompleteOptions(evolved, given)).error().message;
  };
  EXPECT_THAT(message({5, 4, 64, 128, 2, 32, 100}, nullptr), HasSubstr("encoder_layers is 5"));
  EXPECT_THAT(message({5, 4, 64, 128, 2, 32, 100}, nullptr), HasSubstr("such as 4 or 6"));
  EXPECT_THAT(message({4, 1, 64, 128, 2, 32, 100}, nullptr), HasSubstr("such as 2"));
  EXPECT_THAT(message({4, 4, 63, 128, 2, 32, 100}, nullptr), HasSubstr("d_model is 63"));
  EXPECT_THAT(message({4, 4, 64, 128, 4, 32, 100}, {{"max_heads", 3}}), HasSubstr("0 or at least 4"));
  EXPECT_TRUE(evolved.CheckShape({4, 4, 64, 128, 4, 32, 100}, *CompleteOptions(evolved, {{"max_heads", 4}})).ok());
}

TEST(ArchOptions, FunnelNeedsALayerInEachOfItsBlocks) {
  const Architecture& funnel = **FindArchitecture("funnel");
  Shape shape = *FindSize("nano");
  for (int64_t layers : {1, 2}) {
    shape.encoder_layers = layers;
    const auto status = funnel.CheckShape(shape, *CompleteOptions(funnel, nullptr));
    ASSERT_FALSE(status.ok());
    EXPECT_THAT(status.error().message,
                HasSubstr("encoder_layers is " + std::to_string(layers) + ", and must be at least 3"));
  }
  shape.encoder_layers = 3;
  shape.decoder_layers = 1;
  EXPECT_TRUE(funnel.CheckShape(shape, *CompleteOptions(funnel, nullptr)).ok());
}

TEST(ArchOptions, LconvKernelsMustDivideTheWidth) {
  const Architecture& lconv = **FindArchitecture("lconv");
  EXPECT_FALSE(lconv.CheckShape(*FindSize("nano"), *CompleteOptions(lconv, Json{{"heads", 7}})).ok());
  EXPECT_TRUE(lconv.CheckShape(*FindSize("nano"), *CompleteOptions(lconv, Json{{"heads", 8}})).ok());
}

}  // namespace
}  // namespace allometry::arch
