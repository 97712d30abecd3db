#include <cmath>

#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/optimizers.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kCount = 4;                       // neighbours that a thread takes at a time
constexpr int kAcross = kTileColumns / kCount;  // threads along a tile's row
constexpr int kDown = kThreads / kAcross;       // rows that a block takes at a time
constexpr int kWarpsAcross = kAcross / kWarp;   // warps along a row
constexpr int kRowsEach = kTileRows / kDown;    // rows of a thread
static_assert(kAcross % kWarp == 0 && kTileRows % kDown == 0);

// The four neighbours that a thread takes: some of them may lie behind the end, and then or where an array is not
// aligned they go one by one.
struct Four {
  int64_t at = 0;
  int valid = 0;  // 0 to 4
};

template <typename T>
__device__ __forceinline__ void Load(const T* p, const Four& four, float (&v)[kCount]) {
  if (four.valid == kCount && IsAligned(p) && four.at % kCount == 0) {
    LoadPack(p + four.at, v);
    return;
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) v[k] = k < four.valid ? Widen(p[four.at + k]) : 0.0f;
}
template <typename T>
__device__ __forceinline__ void Store(T* p, const Four& four, const float (&v)[kCount]) {
  if (four.valid == kCount && IsAligned(p) && four.at % kCount == 0) {
    StorePack(p + four.at, v);
    return;
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k)
    if (k < four.valid) p[four.at + k] = Narrow<T>(v[k]);
}

template <typename T>
__device__ __forceinline__ void LoadGradient(const OptimizerTensor& tensor, const Four& four, float factor,
                                             float (&g)[kCount]) {
  Load(static_cast<const T*>(tensor.gradient), four, g);
#pragma unroll
  for (int k = 0; k < kCount; ++k) g[k] *= factor;
}

__device__ __forceinline__ void StoreValue(const OptimizerTensor& tensor, const Four& four, const float (&x)[kCount]) {
  Store(tensor.value, four, x);
  if (tensor.copy) Store(tensor.copy, four, x);
}

__device__ __forceinline__ float FactorOf(const float* factor) { return factor ? *factor : 1.0f; }

// What a thread takes of a tile: rows Row(0), Row(1), ... and of each the columns from Column() on.
struct Place {
  OptimizerTensor tensor;
  OptimizerTile tile;

  __device__ __forceinline__ Place(const OptimizerWork& work, int64_t index)
      : tensor(work.tensors[work.tiles[index].tensor]), tile(work.tiles[index]) {}
  __device__ __forceinline__ int Column() const {
    return tile.column + static_cast<int>(threadIdx.x % kAcross) * kCount;
  }
  __device__ __forceinline__ int RowInTile(int i) const { return i * kDown + static_cast<int>(threadIdx.x / kAcross); }
  __device__ __forceinline__ Four At(int i) const {
    const int64_t row = tile.row + RowInTile(i), column = Column();
    const int64_t at = (tile.matrix * tensor.rows + row) * tensor.columns + column;
    int64_t valid = row < tensor.rows ? tensor.columns - column : 0;
    valid = Min(valid, tensor.count - at);  // the last row of a tensor that is no matrix
    return {at, static_cast<int>(Max<int64_t>(0, Min<int64_t>(kCount, valid)))};
  }
};

// ---- The norm of the gradients.

template <typename T>
__global__ void __launch_bounds__(kThreads) SquaredNormKernel(GradientNormArgs args) {
  const Place place(args.work, blockIdx.x);
  float squares = 0;
  if (place.tensor.gradient)
    for (int i = 0; i < kRowsEach; ++i) {
      float g[kCount];
      LoadGradient<T>(place.tensor, place.At(i), 1.0f, g);
#pragma unroll
      for (int k = 0; k < kCount; ++k) squares += g[k] * g[k];
    }
  const double total = BlockSum<kThreads>(static_cast<double>(squares));
  if (threadIdx.x == 0) args.partial[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads) FinishNormKernel(GradientNormArgs args) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < args.work.tile_count; i += kThreads) sum += args.partial[i];
  const double norm = sqrt(BlockSum<kThreads>(sum));
  if (threadIdx.x != 0) return;
  if (args.norm) *args.norm = static_cast<float>(norm);
  if (args.factor) *args.factor = args.limit > 0 && norm > args.limit ? static_cast<float>(args.limit / norm) : 1.0f;
}

__global__ void AdvanceKernel(int64_t* step) { *step += 1; }

__global__ void __launch_bounds__(kThreads) AdvanceEachKernel(OptimizerWork work, float* steps) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < work.tensor_count && work.tensors[i].gradient) steps[i] += 1;
}

// ---- AdamW.

// What the rates of decay become, in double precision by the host.
struct Decays {
  float keep1, fresh1, log1, keep2, fresh2, log2;
  explicit Decays(const AdamWArgs& args)
      : keep1(static_cast<float>(args.beta1)),
        fresh1(static_cast<float>(1 - args.beta1)),
        log1(static_cast<float>(std::log(args.beta1))),
        keep2(static_cast<float>(args.beta2)),
        fresh2(static_cast<float>(1 - args.beta2)),
        log2(static_cast<float>(std::log(args.beta2))) {}
};

template <typename T>
__global__ void __launch_bounds__(kThreads) AdamWKernel(AdamWArgs args, Decays decays) {
  const Place place(args.work, blockIdx.x);
  const OptimizerTensor& tensor = place.tensor;
  if (!tensor.gradient) return;
  const float t = args.steps[place.tile.tensor], rate = *args.rate, factor = FactorOf(args.factor);
  // 1 - b^t without cancellation where b is near 1.
  const float correction1 = -expm1f(t * decays.log1), correction2 = -expm1f(t * decays.log2);
  const float keep = 1 - rate * args.weight_decay, size = rate / correction1, root = rsqrtf(correction2);
  for (int i = 0; i < kRowsEach; ++i) {
    const Four four = place.At(i);
    if (four.valid == 0) return;
    float g[kCount], x[kCount], m[kCount], v[kCount];
    LoadGradient<T>(tensor, four, factor, g);
    Load(tensor.value, four, x);
    Load(tensor.first_moment, four, m);
    Load(tensor.second_moment, four, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      m[k] = decays.keep1 * m[k] + decays.fresh1 * g[k];
      v[k] = decays.keep2 * v[k] + decays.fresh2 * g[k] * g[k];
      x[k] = keep * x[k] - size * m[k] / (sqrtf(v[k]) * root + args.epsilon);
    }
    Store(tensor.first_moment, four, m);
    Store(tensor.second_moment, four, v);
    StoreValue(tensor, four, x);
  }
}

// ---- Adafactor, in six kernels: each needs sums over what the one before it left.

struct Sums {
  float *value_squares, *update_squares;  // for each tile
  __device__ __forceinline__ explicit Sums(const OptimizerWork& work)
      : value_squares(work.workspace + work.sums),
        update_squares(value_squares + work.tile_count),
        totals_(work.workspace + work.totals) {}
  __device__ __forceinline__ float& ValueSquares(int64_t tensor) const { return totals_[2 * tensor]; }
  __device__ __forceinline__ float& UpdateSquares(int64_t tensor) const { return totals_[2 * tensor + 1]; }

 private:
  float* totals_;
};

// t^-decay_exponent: the share of what is new.
__device__ __forceinline__ float FreshShare(const AdafactorArgs& args) {
  return powf(static_cast<float>(*args.step), -args.decay_exponent);
}

// The sums of a factored tile's squares along its rows and columns.
template <typename T>
__device__ __forceinline__ void TileSums(const AdafactorArgs& args, const Place& place, float factor) {
  __shared__ float row_sums[kTileRows][kWarpsAcross], column_sums[kDown][kTileColumns];
  const OptimizerTensor& tensor = place.tensor;
  float columns[kCount] = {};
  for (int i = 0; i < kRowsEach; ++i) {
    const Four four = place.At(i);
    float g[kCount], sum = 0;
    LoadGradient<T>(tensor, four, factor, g);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const float square = k < four.valid ? g[k] * g[k] + args.epsilon_gradient : 0.0f;
      columns[k] += square;
      sum += square;
    }
    sum = WarpSum(sum);
    if (threadIdx.x % kWarp == 0) row_sums[place.RowInTile(i)][threadIdx.x % kAcross / kWarp] = sum;
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) column_sums[threadIdx.x / kAcross][threadIdx.x % kAcross * kCount + k] = columns[k];
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.x), matrix = place.tile.matrix;
  const int64_t row = place.tile.row + thread, column = place.tile.column + thread;
  if (thread < kTileRows && row < tensor.rows) {
    const int64_t across = CeilDiv<int64_t>(tensor.columns, kTileColumns);
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarpsAcross; ++w) sum += row_sums[thread][w];
    args.work.workspace[tensor.row_sums + (matrix * across + place.tile.column / kTileColumns) * tensor.rows + row] =
        sum;
  }
  if (column < tensor.columns) {
    const int64_t down = CeilDiv<int64_t>(tensor.rows, kTileRows);
    float sum = 0;
#pragma unroll
    for (int d = 0; d < kDown; ++d) sum += column_sums[d][thread];
    args.work.workspace[tensor.column_sums + (matrix * down + place.tile.row / kTileRows) * tensor.columns + column] =
        sum;
  }
}

// 1. Sums of the squares; second moments that are not factored move on.
template <typename T>
__global__ void __launch_bounds__(kThreads) AdafactorMomentsKernel(AdafactorArgs args) {
  const Place place(args.work, blockIdx.x);
  const OptimizerTensor& tensor = place.tensor;
  if (!tensor.gradient) return;
  const float factor = FactorOf(args.factor), fresh = FreshShare(args), decay = 1 - fresh;
  float value_squares = 0, update_squares = 0;
  for (int i = 0; i < kRowsEach; ++i) {
    const Four four = place.At(i);
    if (four.valid == 0) break;
    float x[kCount];
    Load(tensor.value, four, x);
#pragma unroll
    for (int k = 0; k < kCount; ++k) value_squares += x[k] * x[k];
    if (tensor.factored) continue;
    float g[kCount], v[kCount];
    LoadGradient<T>(tensor, four, factor, g);
    Load(tensor.second_moment, four, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const float square = g[k] * g[k];
      v[k] = decay * v[k] + fresh * (square + args.epsilon_gradient);
      if (k < four.valid) update_squares += square / v[k];
    }
    Store(tensor.second_moment, four, v);
  }
  if (tensor.factored) TileSums<T>(args, place, factor);
  value_squares = BlockSum<kThreads>(value_squares);
  update_squares = BlockSum<kThreads>(update_squares);
  const Sums sums(args.work);
  if (threadIdx.x == 0) {
    sums.value_squares[blockIdx.x] = value_squares;
    if (!tensor.factored) sums.update_squares[blockIdx.x] = update_squares;
  }
}

// 2. Row and column means move on.
__global__ void __launch_bounds__(kTileColumns) AdafactorMeansKernel(AdafactorArgs args) {
  const OptimizerMeans item = args.work.means[blockIdx.x];
  const OptimizerTensor tensor = args.work.tensors[item.tensor];
  const int64_t size = item.of_columns ? tensor.columns : tensor.rows, i = int64_t{item.first} + threadIdx.x;
  if (!tensor.gradient || i >= size) return;
  const int64_t parts =
      item.of_columns ? CeilDiv<int64_t>(tensor.rows, kTileRows) : CeilDiv<int64_t>(tensor.columns, kTileColumns);
  const float* sums =
      args.work.workspace + (item.of_columns ? tensor.column_sums : tensor.row_sums) + item.matrix * parts * size + i;
  float sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += sums[part * size];
  const float fresh = FreshShare(args), among = static_cast<float>(item.of_columns ? tensor.rows : tensor.columns);
  float& mean = (item.of_columns ? tensor.column_means : tensor.row_means)[item.matrix * size + i];
  mean = (1 - fresh) * mean + fresh * (sum / among);
}

// 3. The mean of a matrix's row means.
__global__ void __launch_bounds__(kThreads) AdafactorMatrixKernel(AdafactorArgs args) {
  const OptimizerTile item = args.work.matrices[blockIdx.x];
  const OptimizerTensor tensor = args.work.tensors[item.tensor];
  if (!tensor.gradient) return;
  float sum = 0;
  for (int64_t row = threadIdx.x; row < tensor.rows; row += kThreads)
    sum += tensor.row_means[item.matrix * tensor.rows + row];
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) args.work.workspace[tensor.matrix_means + item.matrix] = sum / static_cast<float>(tensor.rows);
}

// The update before clipping of a thread's values: g / sqrt(V) by what the second moments are.
template <typename T>
struct Updates {
  const Place& place;
  float factor, mean = 1;
  float columns[kCount] = {};

  __device__ __forceinline__ Updates(const AdafactorArgs& args, const Place& p)
      : place(p), factor(FactorOf(args.factor)) {
    const OptimizerTensor& tensor = p.tensor;
    if (!tensor.factored) return;
    mean = args.work.workspace[tensor.matrix_means + p.tile.matrix];
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      if (p.Column() + k < tensor.columns)
        columns[k] = rsqrtf(tensor.column_means[p.tile.matrix * tensor.columns + p.Column() + k]);
  }
  __device__ __forceinline__ void Get(int i, const Four& four, float (&u)[kCount]) const {
    const OptimizerTensor& tensor = place.tensor;
    LoadGradient<T>(tensor, four, factor, u);
    if (tensor.factored) {
      const float row =
          rsqrtf(tensor.row_means[place.tile.matrix * tensor.rows + place.tile.row + place.RowInTile(i)] / mean);
#pragma unroll
      for (int k = 0; k < kCount; ++k) u[k] *= row * columns[k];
    } else {
      float v[kCount];
      Load(tensor.second_moment, four, v);
#pragma unroll
      for (int k = 0; k < kCount; ++k) u[k] = k < four.valid ? u[k] * rsqrtf(v[k]) : 0.0f;
    }
  }
};

// 4. The squares of factored tensors' updates.
template <typename T>
__global__ void __launch_bounds__(kThreads) AdafactorSquaresKernel(AdafactorArgs args) {
  const Place place(args.work, blockIdx.x);
  if (!place.tensor.gradient) return;
  const Updates<T> updates(args, place);
  float squares = 0;
  for (int i = 0; i < kRowsEach; ++i) {
    const Four four = place.At(i);
    if (four.valid == 0) break;
    float u[kCount];
    updates.Get(i, four, u);
#pragma unroll
    for (int k = 0; k < kCount; ++k) squares += u[k] * u[k];
  }
  squares = BlockSum<kThreads>(squares);
  if (threadIdx.x == 0) Sums(args.work).update_squares[blockIdx.x] = squares;
}

// 5. Each tensor's squares.
__global__ void __launch_bounds__(kThreads) AdafactorTotalsKernel(AdafactorArgs args) {
  const OptimizerTensor tensor = args.work.tensors[blockIdx.x];
  if (!tensor.gradient) return;
  const Sums sums(args.work);
  double value = 0, update = 0;
  for (int64_t tile = threadIdx.x; tile < tensor.tiles; tile += kThreads) {
    value += sums.value_squares[tensor.first_tile + tile];
    update += sums.update_squares[tensor.first_tile + tile];
  }
  value = BlockSum<kThreads>(value);
  update = BlockSum<kThreads>(update);
  if (threadIdx.x != 0) return;
  sums.ValueSquares(blockIdx.x) = static_cast<float>(value);
  sums.UpdateSquares(blockIdx.x) = static_cast<float>(update);
}

// A tensor's step size, from the root mean squares of its value and its update.
struct StepSize {
  float keep, step;
  __device__ __forceinline__ StepSize(const AdafactorArgs& args, const Place& place) {
    const Sums sums(args.work);
    const float among = static_cast<float>(place.tensor.whole_count);
    const float value = sqrtf(sums.ValueSquares(place.tile.tensor) / among);
    const float update = sqrtf(sums.UpdateSquares(place.tile.tensor) / among);
    const float size = *args.rate * fmaxf(args.epsilon_scale, value);
    keep = 1 - size * args.weight_decay;
    step = size / fmaxf(1.0f, update / args.clip_threshold);
  }
};

// 6. The values.
template <typename T>
__global__ void __launch_bounds__(kThreads) AdafactorApplyKernel(AdafactorArgs args) {
  const Place place(args.work, blockIdx.x);
  if (!place.tensor.gradient) return;
  const StepSize size(args, place);
  const Updates<T> updates(args, place);
  for (int i = 0; i < kRowsEach; ++i) {
    const Four four = place.At(i);
    if (four.valid == 0) return;
    float u[kCount], x[kCount];
    updates.Get(i, four, u);
    Load(place.tensor.value, four, x);
#pragma unroll
    for (int k = 0; k < kCount; ++k) x[k] = size.keep * x[k] - size.step * u[k];
    StoreValue(place.tensor, four, x);
  }
}

dim3 Blocks(int64_t count) { return dim3(static_cast<unsigned>(count)); }

void Advance(Stream stream, int64_t* step) { Launch(stream, &AdvanceKernel, dim3(1), dim3(1), 0, step); }

void AdvanceEach(Stream stream, const OptimizerWork& work, float* steps) {
  if (work.tensor_count == 0) return;
  Launch(stream, &AdvanceEachKernel, Blocks(CeilDiv<int64_t>(work.tensor_count, kThreads)), dim3(kThreads), 0, work,
         steps);
}

void GradientNorm(Stream stream, DataType type, const GradientNormArgs& args) {
  WithType(type, [&]<typename T>(T) {
    if (args.work.tile_count)
      Launch(stream, &SquaredNormKernel<T>, Blocks(args.work.tile_count), dim3(kThreads), 0, args);
  });
  Launch(stream, &FinishNormKernel, dim3(1), dim3(kThreads), 0, args);
}

void AdamW(Stream stream, DataType type, const AdamWArgs& args) {
  if (args.work.tile_count == 0) return;
  WithType(type, [&]<typename T>(T) {
    Launch(stream, &AdamWKernel<T>, Blocks(args.work.tile_count), dim3(kThreads), 0, args, Decays(args));
  });
}

void AdafactorMeasure(Stream stream, DataType type, const AdafactorArgs& args) {
  const OptimizerWork& work = args.work;
  if (work.tile_count == 0) return;
  WithType(type, [&]<typename T>(T) {
    Launch(stream, &AdafactorMomentsKernel<T>, Blocks(work.tile_count), dim3(kThreads), 0, args);
    if (work.factored_tiles) {
      Launch(stream, &AdafactorMeansKernel, Blocks(work.means_count), dim3(kTileColumns), 0, args);
      Launch(stream, &AdafactorMatrixKernel, Blocks(work.matrix_count), dim3(kThreads), 0, args);
      Launch(stream, &AdafactorSquaresKernel<T>, Blocks(work.factored_tiles), dim3(kThreads), 0, args);
    }
  });
  Launch(stream, &AdafactorTotalsKernel, Blocks(work.tensor_count), dim3(kThreads), 0, args);
}

void AdafactorApply(Stream stream, DataType type, const AdafactorArgs& args) {
  if (args.work.tile_count == 0) return;
  WithType(type, [&]<typename T>(T) {
    Launch(stream, &AdafactorApplyKernel<T>, Blocks(args.work.tile_count), dim3(kThreads), 0, args);
  });
}

}  // namespace

void AddOptimizerKernels(KernelTable& table) {
  table.advance = &Advance;
  table.advance_each = &AdvanceEach;
  table.gradient_norm = &GradientNorm;
  table.adamw = &AdamW;
  table.adafactor_measure = &AdafactorMeasure;
  table.adafactor_apply = &AdafactorApply;
}

}  // namespace allometry::trainer::kernels
