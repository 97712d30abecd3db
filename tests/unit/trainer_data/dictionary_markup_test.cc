#include "worker/trainer/data/dictionary_markup.h"

#include <gtest/gtest.h>

namespace allometry::trainer {
namespace {

TEST(DictionaryMarkup, HeadingKeepsWordAndPartOfSpeechOnly) {
  EXPECT_EQ(EntryAsProse("Walk \\Walk\\, v. i. [imp. {Walked}; p. pr.\n   {Walking}.] [OE. walken, (fr. AS.\n   "
                         "wealcan.)]\n   1. To go.\n"),
            "Walk, v. i.  \n   1. To go.\n");
  EXPECT_EQ(EntryAsProse("Boat (b[=o]t; 277), n.\n   A ship.\n"), "Boat, n.\n   A ship.\n");
  EXPECT_EQ(EntryAsProse("Wing \\Wing\\, n. (Zool.)\n   A limb.\n"), "Wing, n. (Zool.)\n   A limb.\n");
}

TEST(DictionaryMarkup, LettersAreSpelledOut) {
  EXPECT_EQ(EntryAsProse("Form[ae] \\x\\, n.\n   antenn[ae], f[\"u]r, caf['e], s[=e], [eth], [a^]\n"),
            "Formæ, n.\n   antennæ, fu\xCC\x88r, cafe\xCC\x81, se\xCC\x84, ð, a\xCC\x86\n");
}

TEST(DictionaryMarkup, SourcesGoAndUsageStays) {
  EXPECT_EQ(EntryAsProse("Gear \\Gear\\, n.\n   A wheel. [Obs.]\n   [1913 Webster +PJC]\n"),
            "Gear, n.\n   A wheel. [Obs.]\n   \n");
  EXPECT_EQ(EntryAsProse("Gear, n.\n   So [they] came. [WordNet 1.5]\n"), "Gear, n.\n   So [they] came. \n");
}

TEST(DictionaryMarkup, CrossReferencesLoseBracesAndSyllableMarks) {
  EXPECT_EQ(EntryAsProse("Fly, v.\n   See {Wing}. -- {Fly\"er*ly}, adv.\n"),
            "Fly, v.\n   See Wing. -- Flyerly, adv.\n");
}

TEST(DictionaryMarkup, TextThatNeverClosesItsBracketsStays) {
  EXPECT_EQ(EntryAsProse("Open [from\n   nothing {here\n   and \\there\n"), "Open \n   nothing here\n   and there\n");
  EXPECT_EQ(EntryAsProse("Plain, n.\n   a [b {c \\d\n"), "Plain, n.\n   a [b c d\n");
  EXPECT_EQ(EntryAsProse(""), "");
}

}  // namespace
}  // namespace allometry::trainer
