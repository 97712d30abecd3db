#include "worker/trainer/data/build_survey.h"

namespace allometry::trainer {
namespace {

using common::Json;

// The counts that are kept, by their names in data.json.
struct NamedCount {
  const char* name;
  int64_t CorpusCounts::*member;
};
constexpr NamedCount kCounts[] = {
    {"documents", &CorpusCounts::documents},         {"words", &CorpusCounts::words},
    {"text_bytes", &CorpusCounts::text_bytes},       {"replaced_lines", &CorpusCounts::replaced_lines},
    {"cut_documents", &CorpusCounts::cut_documents}, {"empty_rows", &CorpusCounts::empty_rows},
    {"bad_rows", &CorpusCounts::bad_rows},           {"damaged_files", &CorpusCounts::damaged_files}};

// What follows from the sides.
void CountSides(TextSurvey* survey) {
  survey->train_documents = survey->valid_documents = survey->duplicates = 0;
  for (int64_t i = 0; i < survey->sides.size(); ++i) {
    const Side side = survey->sides.at(i);
    ++(side == Side::kTrain   ? survey->train_documents
       : side == Side::kValid ? survey->valid_documents
                              : survey->duplicates);
  }
}

common::Error Changed() { return common::DataLoss("the corpus changed while it was being read"); }

}  // namespace

DocumentSides DocumentSides::FromBytes(std::string bytes, int64_t size) {
  DocumentSides sides;
  sides.bits_ = std::move(bytes);
  sides.size_ = size;
  return sides;
}

common::Result<TextSurvey> SurveyText(const PrepareRecipe& recipe, const std::filesystem::path& work,
                                      const PassCallback& progress) {
  const std::vector<CorpusSource> sources = SourcesOf(recipe);
  TextSurvey survey;
  survey.documents.resize(sources.size());
  DuplicateFinder duplicates(work);
  const CorpusSink sink = [&](std::string_view document, size_t source) {
    const Fingerprint print = FingerprintOf(document);
    const bool valid = recipe.valid.empty() ? PlaceOf(print) < recipe.validation_fraction : sources[source].validation;
    survey.sides.Add(valid ? Side::kValid : Side::kTrain);
    ++survey.documents[source];
    return duplicates.Add(print);
  };
  ALLO_RETURN_IF_ERROR(ReadCorpus(sources, 0, recipe.layout, sink, &survey.counts, progress));
  ALLO_RETURN_IF_ERROR(duplicates.Finish([&](int64_t document, int64_t first) {
    if (survey.sides.at(document) == Side::kDuplicate) return;
    survey.sides.Set(document, Side::kDuplicate);
    survey.duplicates_of_validation += survey.sides.at(first) == Side::kValid;
  }));
  CountSides(&survey);
  return survey;
}

common::Status CheckSurvey(const TextSurvey& survey, const PrepareRecipe& recipe) {
  const int64_t different = survey.train_documents + survey.valid_documents;
  if (different == 0)
    return common::DataLoss("there is no text in the corpus: the files are empty or hold only blanks");
  const char* empty = survey.valid_documents == 0 ? "validation" : survey.train_documents == 0 ? "training" : nullptr;
  if (!empty) return common::Ok();
  const std::string message = "the " + std::string(empty) + " part is empty: ";
  if (!recipe.valid.empty())
    return common::DataLoss(message + "the files of " + (survey.valid_documents == 0 ? "validation" : "training") +
                            " have no text" +
                            (survey.duplicates_of_validation > 0 ? " that is not in those of validation" : ""));
  return common::DataLoss(message + "the corpus has " + std::to_string(different) +
                          " different documents and validation_fraction is " +
                          std::to_string(recipe.validation_fraction) +
                          "; change the fraction, bring more text, or make documents smaller (document: line)");
}

Json SurveyToJson(const TextSurvey& survey) {
  Json counts = Json::object();
  for (const NamedCount& count : kCounts) counts[count.name] = survey.counts.*count.member;
  if (!survey.counts.first_bad.empty()) counts["first_bad"] = survey.counts.first_bad;
  counts["duplicates"] = survey.duplicates;
  counts["duplicates_of_validation"] = survey.duplicates_of_validation;
  return {{"counts", counts}, {"documents_of_sources", survey.documents}};
}

common::Result<TextSurvey> SurveyFromJson(const Json& json, std::string sides) {
  TextSurvey survey;
  const Json& counts = json.at("counts");
  for (const NamedCount& count : kCounts) survey.counts.*count.member = counts.at(count.name).get<int64_t>();
  survey.counts.first_bad = counts.value("first_bad", "");
  survey.duplicates_of_validation = counts.at("duplicates_of_validation").get<int64_t>();
  survey.documents = json.at("documents_of_sources").get<std::vector<int64_t>>();
  if (static_cast<int64_t>(sides.size()) != (survey.counts.documents + 3) / 4)
    return common::DataLoss("the survey's file of sides does not fit its count of documents");
  survey.sides = DocumentSides::FromBytes(std::move(sides), survey.counts.documents);
  CountSides(&survey);
  return survey;
}

common::Status ReadSurveyed(const PrepareRecipe& recipe, const TextSurvey& survey, int64_t first,
                            const SurveyedSink& sink, const PassCallback& progress) {
  // Sources that lie wholly before the first document need not be read.
  size_t source = 0;
  int64_t number = 0;
  while (source < survey.documents.size() && number + survey.documents[source] <= first)
    number += survey.documents[source++];
  const CorpusSink numbered = [&](std::string_view document, size_t) -> common::Status {
    if (number >= survey.sides.size()) return Changed();
    const int64_t i = number++;
    return i < first ? common::Ok() : sink(document, survey.sides.at(i), i);
  };
  CorpusCounts counts;
  ALLO_RETURN_IF_ERROR(ReadCorpus(SourcesOf(recipe), source, recipe.layout, numbered, &counts, progress));
  return number == survey.sides.size() ? common::Ok() : common::Status(Changed());
}

common::Status SampleSentences(const PrepareRecipe& recipe, const TextSurvey& survey, SentenceSample* sample,
                               const PassCallback& progress) {
  const SurveyedSink sink = [&](std::string_view document, Side side, int64_t) {
    if (side == Side::kTrain) sample->Add(document);
    return common::Ok();
  };
  return ReadSurveyed(recipe, survey, 0, sink, progress);
}

}  // namespace allometry::trainer
