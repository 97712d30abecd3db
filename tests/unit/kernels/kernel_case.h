#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "worker/trainer/kernels/emulated.h"
#include "worker/trainer/kernels/kernel_table.h"

// A case of the kernels' tests: the same calls through the same table, once emulated and once on a GPU, where there is
// one.
namespace allometry::trainer::kernels {

enum class Where { kEmulated, kDevice };

using Values = std::vector<double>;

// Values as the device stores them, in a type that they are rounded to on the way.
struct Array {
  const KernelTable* table = nullptr;
  void* memory = nullptr;
  DataType type = DataType::kFloat32;
  size_t count = 0;

  Array(const KernelTable* t, DataType ty, size_t n) : table(t), type(ty), count(n) { memory = t->allocate(Bytes()); }
  ~Array() {
    if (memory) table->release(memory);
  }
  Array(Array&& other) noexcept : table(other.table), memory(other.memory), type(other.type), count(other.count) {
    other.memory = nullptr;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  size_t Bytes() const { return std::max<size_t>(1, count * (type == DataType::kBfloat16 ? 2 : 4)); }
  float* floats() const { return static_cast<float*>(memory); }
  Values Read() const;
};

inline float Rounded(double value, DataType type) {
  float x = static_cast<float>(value);
  if (type == DataType::kFloat32 || x != x) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline void Round(Values& values, DataType type) {
  for (double& value : values) value = Rounded(value, type);
}

inline Values Array::Read() const {
  std::vector<unsigned char> raw(Bytes());
  table->to_host(raw.data(), memory, count == 0 ? 0 : Bytes());
  Values out(count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    if (type == DataType::kBfloat16) {
      uint16_t half;
      std::memcpy(&half, raw.data() + 2 * i, 2);
      bits = uint32_t{half} << 16;
    } else {
      std::memcpy(&bits, raw.data() + 4 * i, 4);
    }
    float x;
    std::memcpy(&x, &bits, 4);
    out[i] = x;
  }
  return out;
}

class KernelTest : public ::testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    if (GetParam() == Where::kEmulated) {
      static const KernelTable emulated = MakeKernelTable();
      table_ = &emulated;
      return;
    }
    std::string why_not;
    table_ = LoadKernelTable(&why_not);
    if (!table_) GTEST_SKIP() << "no kernels on a GPU: " << why_not;
  }
  void TearDown() override {
    if (!table_) return;
    const char* error = table_->last_error();
    EXPECT_EQ(error, nullptr) << error;
  }

  const KernelTable& table() const { return *table_; }

  // Normal values, rounded to the type: the reference starts from what the kernel reads.
  Values Random(size_t count, DataType type, double scale = 1) {
    std::normal_distribution<double> normal(0, scale);
    Values values(count);
    for (double& value : values) value = normal(random_);
    Round(values, type);
    return values;
  }
  int64_t Index(int64_t below) { return std::uniform_int_distribution<int64_t>(0, below - 1)(random_); }
  bool Chance(double p) { return std::bernoulli_distribution(p)(random_); }

  Array Upload(const Values& values, DataType type) {
    Array array(table_, type, values.size());
    std::vector<unsigned char> raw(array.Bytes());
    for (size_t i = 0; i < values.size(); ++i) {
      const float x = Rounded(values[i], type);
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      if (type == DataType::kBfloat16) {
        const auto half = static_cast<uint16_t>(bits >> 16);
        std::memcpy(raw.data() + 2 * i, &half, 2);
      } else {
        std::memcpy(raw.data() + 4 * i, &bits, 4);
      }
    }
    if (!values.empty()) table_->to_device(array.memory, raw.data(), array.Bytes());
    return array;
  }
  Array Empty(size_t count, DataType type) {  // NaN, so that what a kernel forgets to write shows
    return Upload(Values(count, std::nan("")), type);
  }

  // Any other plain data.
  template <typename T>
  class Plain {
   public:
    Plain(const KernelTable* table, const std::vector<T>& values) : table_(table), count_(values.size()) {
      memory_ = table->allocate(std::max<size_t>(1, count_ * sizeof(T)));
      if (count_) table->to_device(memory_, values.data(), count_ * sizeof(T));
    }
    ~Plain() { table_->release(memory_); }
    Plain(const Plain&) = delete;
    Plain& operator=(const Plain&) = delete;
    T* get() const { return static_cast<T*>(memory_); }
    std::vector<T> Read() const {
      std::vector<T> values(count_);
      if (count_) table_->to_host(values.data(), memory_, count_ * sizeof(T));
      return values;
    }

   private:
    const KernelTable* table_;
    size_t count_;
    void* memory_;
  };
  template <typename T>
  Plain<T> UploadPlain(const std::vector<T>& values) {
    return Plain<T>(table_, values);
  }

  std::mt19937_64 random_{7};

 private:
  const KernelTable* table_ = nullptr;
};

// |got - want| <= relative (|want| + the root mean square of `want`): a value that is nearly nothing by cancellation is
// judged by its neighbours' size, and by
// that of what it is the difference of, where that is given.
inline void ExpectClose(const Values& got, const Values& want, double relative, const std::string& what,
                        double least_size = 0) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double squares = 0;
  for (const double w : want)
    if (std::isfinite(w)) squares += w * w;
  const double size = std::max(least_size, std::sqrt(squares / static_cast<double>(std::max<size_t>(1, want.size()))));
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i]) continue;
    ASSERT_LE(std::abs(got[i] - want[i]), relative * (std::abs(want[i]) + size) + 1e-30)
        << what << "[" << i << "]: " << got[i] << " for " << want[i];
  }
}

// Stated in docs/kernels.md: float32 results within 2e-5, what is stored as bfloat16 within its half unit, 2^-8, and a
// bit.
inline double Tolerance(DataType type) { return type == DataType::kFloat32 ? 2e-5 : 5e-3; }

inline const DataType kTypes[] = {DataType::kFloat32, DataType::kBfloat16};

inline std::string Named(const ::testing::TestParamInfo<Where>& info) {
  return info.param == Where::kEmulated ? "Emulated" : "Device";
}

#define ALLO_KERNEL_TEST(name) \
  INSTANTIATE_TEST_SUITE_P(Kernels, name, ::testing::Values(Where::kEmulated, Where::kDevice), Named)

}  // namespace allometry::trainer::kernels
