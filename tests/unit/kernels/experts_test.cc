#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

using ExpertsTest = KernelTest;
ALLO_KERNEL_TEST(ExpertsTest);

struct Shape {
  int64_t batch, length, experts, capacity;
  int64_t width() const { return std::min(capacity, length); }
  int64_t slots() const { return experts * batch * width(); }
};
const Shape kShapes[] = {{1, 1, 1, 1},   {2, 7, 3, 2},    {3, 32, 4, 10},
                         {2, 100, 8, 9}, {1, 65, 2, 200}, {2, 130, 1000, 3}};

struct Routes {
  std::vector<int64_t> slot_of_token, token_of_slot, sent;
};
Routes Expected(Shape s, const std::vector<int64_t>& expert, const std::vector<uint8_t>& token) {
  Routes r{std::vector<int64_t>(s.batch * s.length, -1), std::vector<int64_t>(s.slots(), -1),
           std::vector<int64_t>(s.batch * s.experts)};
  for (int64_t at = 0; at < s.batch * s.length; ++at) {
    if (!token[at] || expert[at] < 0) continue;
    const int64_t b = at / s.length, place = r.sent[b * s.experts + expert[at]]++;
    if (place >= s.capacity) continue;
    r.slot_of_token[at] = (expert[at] * s.batch + b) * s.width() + place;
    r.token_of_slot[r.slot_of_token[at]] = at;
  }
  return r;
}

TEST_P(ExpertsTest, Route) {
  for (const bool padded : {false, true})
    for (const Shape s : kShapes) {
      std::vector<int64_t> expert(s.batch * s.length);
      std::vector<uint8_t> token(expert.size(), 1);
      for (auto& e : expert) e = Chance(0.1) ? -1 : Chance(0.5) ? 0 : Index(s.experts);
      if (padded)
        for (auto& t : token) t = !Chance(0.2);
      const Routes want = Expected(s, expert, token);
      const auto in = UploadPlain(expert);
      const auto mask = UploadPlain(token);
      const auto slots = UploadPlain(std::vector<int64_t>(expert.size(), 99)),
                 tokens = UploadPlain(std::vector<int64_t>(s.slots(), 99)),
                 sent = UploadPlain(std::vector<int64_t>(s.batch * s.experts, 99));
      table().route(nullptr, {.expert = in.get(),
                              .token = padded ? mask.get() : nullptr,
                              .slot_of_token = slots.get(),
                              .token_of_slot = tokens.get(),
                              .sent = sent.get(),
                              .batch = s.batch,
                              .length = s.length,
                              .experts = s.experts,
                              .capacity = s.capacity,
                              .width = s.width()});
      EXPECT_EQ(slots.Read(), want.slot_of_token);
      EXPECT_EQ(tokens.Read(), want.token_of_slot);
      EXPECT_EQ(sent.Read(), want.sent);
    }
}

TEST_P(ExpertsTest, GatherAndDots) {
  for (const DataType type : kTypes)
    for (const int64_t d : {1, 7, 64, 100, 513}) {
      constexpr int64_t kRows = 37, kSource = 11;
      std::vector<int64_t> index(kRows);
      for (auto& i : index) i = Chance(0.2) ? -1 : Index(kSource);
      const Values x = Random(kSource * d, type), before = Random(kRows * d, type), a = Random(kRows * d, type),
                   to = Random(kRows, DataType::kFloat32), from = Random(kSource, DataType::kFloat32);
      const auto on_device = UploadPlain(index);
      const Array in = Upload(x, type), in_before = Upload(before, type), in_a = Upload(a, type),
                  in_to = Upload(to, DataType::kFloat32), in_from = Upload(from, DataType::kFloat32);
      for (int variant = 0; variant < 8; ++variant) {
        Values want(kRows * d);
        for (int64_t i = 0; i < kRows * d; ++i) {
          const int64_t source = index[i / d];
          if (variant & 1) want[i] = before[i];
          if (source >= 0)
            want[i] += x[source * d + i % d] * (variant & 2 ? to[i / d] : 1) * (variant & 4 ? from[source] : 1);
        }
        const Array out = Empty(want.size(), type);
        table().gather_rows(nullptr, type,
                            {.x = in.memory,
                             .index = on_device.get(),
                             .by_destination = variant & 2 ? in_to.floats() : nullptr,
                             .by_source = variant & 4 ? in_from.floats() : nullptr,
                             .before = variant & 1 ? in_before.memory : nullptr,
                             .out = out.memory,
                             .rows = kRows,
                             .d = d});
        ExpectClose(out.Read(), want, Tolerance(type), "rows");
      }
      Values dots(kRows);
      for (int64_t i = 0; i < kRows * d; ++i)
        if (index[i / d] >= 0) dots[i / d] += a[i] * x[index[i / d] * d + i % d];
      const Array out = Empty(kRows, DataType::kFloat32);
      table().row_dots(
          nullptr, type,
          {.a = in_a.memory, .b = in.memory, .index = on_device.get(), .dots = out.floats(), .rows = kRows, .d = d});
      ExpectClose(out.Read(), dots, 2e-5, "dots", 1);
    }
}

}  // namespace
}  // namespace allometry::trainer::kernels
