#include "worker/trainer/kernels/cross_entropy.h"
#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kKept = 8;  // packs of a row that a thread keeps in registers between reading and writing

// A pack as it lies in memory.
template <typename T, int kCount>
struct Raw {
  uint4 bits;
  __device__ __forceinline__ void Load(const T* p) { bits = LoadRaw(p); }
  __device__ __forceinline__ void Values(float (&v)[kCount]) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if constexpr (kCount == 8) {
        v[2 * i] = WidenLow(words[i]);
        v[2 * i + 1] = WidenHigh(words[i]);
      } else {
        v[i] = __uint_as_float(words[i]);
      }
  }
};
template <typename T>
struct Raw<T, 1> {
  float value;
  __device__ __forceinline__ void Load(const T* p) { value = Widen(*p); }
  __device__ __forceinline__ void Values(float (&v)[1]) const { v[0] = value; }
};

// A row of logits, dealt to the threads of a block pack by pack.
template <typename T, int kCount>
struct Row {
  T* logits;
  int64_t v;
  Raw<T, kCount> kept[kKept];

  static constexpr int64_t kStep = int64_t{kThreads} * kCount;
  __device__ __forceinline__ int64_t Place(int pack) const { return pack * kStep + int64_t{threadIdx.x} * kCount; }

  __device__ __forceinline__ OnlineSum Read() {
    OnlineSum seen = NothingSeen();
#pragma unroll
    for (int pack = 0; pack < kKept; ++pack)
      if (Place(pack) < v) {
        float values[kCount];
        kept[pack].Load(logits + Place(pack));
        kept[pack].Values(values);
        Add(seen, values);
      }
    for (int64_t i = Place(kKept); i < v; i += kStep) {
      float values[kCount];
      LoadPack(logits + i, values);
      Add(seen, values);
    }
    return BlockMerge<kThreads>(seen);
  }

  // logits <- weight softmax, less `at_target` at the target.
  __device__ __forceinline__ void Write(float log_z, float weight, int64_t target, float at_target) {
    const auto turn = [&](int64_t i, float(&values)[kCount]) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        values[k] = weight * __expf(values[k] - log_z);
        if (i + k == target) values[k] -= at_target;
      }
      StorePack(logits + i, values);
    };
#pragma unroll
    for (int pack = 0; pack < kKept; ++pack)
      if (Place(pack) < v) {
        float values[kCount];
        kept[pack].Values(values);
        turn(Place(pack), values);
      }
    for (int64_t i = Place(kKept); i < v; i += kStep) {
      float values[kCount];
      LoadPack(logits + i, values);
      turn(i, values);
    }
  }

  __device__ __forceinline__ void Clear() {
    const float zeros[kCount] = {};
    for (int64_t i = Place(0); i < v; i += kStep) StorePack(logits + i, zeros);
  }
};

// A block a row.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) CrossEntropyKernel(CrossEntropyArgs args) {
  const int64_t at = blockIdx.x, target = args.targets[at];
  Row<T, kCount> row{static_cast<T*>(args.logits) + at * args.v, args.v};
  if (target == 0) {
    if (args.gradient) row.Clear();
    if (threadIdx.x == 0) {
      args.nll[at] = 0;
      if (args.z_loss) args.z_loss[at] = 0;
    }
    return;
  }
  const bool inside = target > 0 && target < args.v;
  const float at_target = inside ? Widen(row.logits[target]) : NAN;  // read by all before anyone writes
  const OnlineSum total = row.Read();
  const float log_z = total.largest + logf(total.sum);
  if (args.gradient) row.Write(log_z, inside ? 1 + 2 * args.z * log_z : NAN, target, 1.0f);
  if (threadIdx.x == 0) {
    args.nll[at] = log_z - at_target;
    if (args.z_loss) args.z_loss[at] = args.z * log_z * log_z;
  }
}

// A block a token. The softmaxes' sums are taken first: their gradients need all of them.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) MixtureKernel(MixtureArgs args) {
  __shared__ float log_z[kMostSoftmaxes], joint[kMostSoftmaxes];
  const int64_t at = blockIdx.x, target = args.targets[at];
  const int softmaxes = static_cast<int>(args.k);
  T* logits = static_cast<T*>(args.logits) + at * args.k * args.v;
  const float* log_prior = args.log_prior + at * args.k;
  const bool inside = target > 0 && target < args.v;
  for (int k = 0; k < softmaxes && target != 0; ++k) {
    Row<T, kCount> row{logits + k * args.v, args.v};
    const OnlineSum total = row.Read();
    if (threadIdx.x == 0) {
      log_z[k] = total.largest + logf(total.sum);
      joint[k] = log_prior[k] - (log_z[k] - (inside ? Widen(row.logits[target]) : NAN));
    }
  }
  __syncthreads();
  float largest = -INFINITY, sum = 0, z_loss = 0;
  for (int k = 0; k < softmaxes && target != 0; ++k) largest = fmaxf(largest, joint[k]);
  for (int k = 0; k < softmaxes && target != 0; ++k) {
    sum += __expf(joint[k] - largest);
    z_loss += args.z * __expf(log_prior[k]) * log_z[k] * log_z[k];
  }
  if (threadIdx.x == 0) {
    args.nll[at] = target != 0 ? -(largest + logf(sum)) : 0.0f;
    if (args.z_loss) args.z_loss[at] = z_loss;
  }
  if (!args.gradient) return;
  for (int k = 0; k < softmaxes; ++k) {
    Row<T, kCount> row{logits + k * args.v, args.v};
    if (target == 0) {
      row.Clear();
      if (threadIdx.x == 0) args.dlog_prior[at * args.k + k] = 0;
      continue;
    }
    const float share = __expf(joint[k] - largest) / sum, slope = args.z * __expf(log_prior[k]) * log_z[k];
    for (int64_t i = row.Place(0); i < args.v; i += Row<T, kCount>::kStep) {
      float values[kCount];
      LoadPack(row.logits + i, values);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        values[j] = (share + 2 * slope) * __expf(values[j] - log_z[k]);
        if (i + j == target) values[j] -= share;
      }
      StorePack(row.logits + i, values);
    }
    if (threadIdx.x == 0) args.dlog_prior[at * args.k + k] = slope * log_z[k] - share;
  }
}

void CrossEntropy(Stream stream, DataType type, const CrossEntropyArgs& args) {
  if (args.n == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.v % kVector<T> == 0 && AllAligned(args.logits), [&](auto count) {
      Launch(stream, &CrossEntropyKernel<T, count()>, dim3(static_cast<unsigned>(args.n)), dim3(kThreads), 0, args);
    });
  });
}

void Mixture(Stream stream, DataType type, const MixtureArgs& args) {
  if (args.n == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.v % kVector<T> == 0 && AllAligned(args.logits), [&](auto count) {
      Launch(stream, &MixtureKernel<T, count()>, dim3(static_cast<unsigned>(args.n)), dim3(kThreads), 0, args);
    });
  });
}

}  // namespace

void AddCrossEntropyKernels(KernelTable& table) {
  table.cross_entropy = &CrossEntropy;
  table.mixture = &Mixture;
}

}  // namespace allometry::trainer::kernels
