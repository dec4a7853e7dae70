// Convolutions on a CPU in float32: every convolution of the family as products of matrices in registers.
//
// Images are (N, H, W, C) with any distance between pixels, so that a branch writes straight into its slice of a
// concatenation. One kernel multiplies: ROWS pixels (or tiles) by two vectors of output channels, which stay in registers
// over all taps and input channels. Where it saves multiplications, a convolution goes through Cook–Toom transforms
// (transforms.py): a block of tiles is transformed, multiplied at each point, and transformed back while it is in cache.
// Bias, residual sum and ReLU are in the last pass.
//
// All vectors are GCC's vector extensions; they become AVX-512, AVX2 or whatever the compiler's flags allow.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>

#include "transforms.h"  // written by transforms.py: Transform<m, r>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 14;  // 28 sums of 32 registers
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6;  // 12 sums of 16 registers
#else
constexpr int LANES = 4, ROWS = 6;
#endif
constexpr int PANEL = 2 * LANES;  // output channels of a product; the last panel of a layer may have half of them
constexpr int MOST_CHANNELS = 8192, MOST_TAPS = 64;

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float unaligned_vec __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));
typedef double double_vec __attribute__((vector_size(LANES * sizeof(double))));

alignas(64) const float ZEROS[MOST_CHANNELS + LANES] = {};  // what a pixel outside the image holds

inline vec load(const float* from) { return *reinterpret_cast<const unaligned_vec*>(from); }

// The first `count` values of a vector, which may be more than it has.
inline void store(float* to, vec value, int count) {
  if (count >= LANES) {
    *reinterpret_cast<unaligned_vec*>(to) = value;
  } else {
    std::memcpy(to, &value, count * sizeof(float));
  }
}

inline vec larger(vec a, vec b) { return a > b ? a : b; }
inline vec rectified(vec x) { return x < 0 ? vec{} : x; }  // NaN stays NaN

}  // namespace

enum Kind : int32_t { CONVOLUTION, WINOGRAD, MAX_POOL, AVERAGE_POOL, PAD, RESPONSE_NORM };

// A layer on all images; mirrored in plan.py. Distances are in floats, between neighbouring pixels.
struct Step {
  int32_t kind, relu;
  int32_t images, height, width, channels;            // of the input
  int32_t out_height, out_width, out_channels;
  int32_t kernel_height, kernel_width, stride_height, stride_width, top, left;
  int32_t tile_height, tile_width;                    // outputs of a tile
  int32_t count_padding;                              // of an average
  int32_t chunks, groups;                             // a task is one chunk of rows × one group of panels
  int64_t distance, out_distance, residual_distance;
  const float *in, *weight, *bias, *residual;         // weight of RESPONSE_NORM: alpha / size, and k
  float* out;
};

// Filters of a convolution, and the matrices G of each side, (rows, taps) in double precision; mirrored in library.py.
// Strides are in floats: along output channels, input channels, height and width. Those of a flipped filter are negative.
struct Filters {
  int32_t out_channels, channels, height, width, down_rows, across_rows;
  int64_t out_stride, stride, row, step;
  const float* in;
  const double *down, *across;
};

namespace {

// What a product adds at its end; `channels`: how many of the panel exist.
struct Ending {
  const float *bias, *residual;
  int64_t residual_distance;
  int channels;
  bool relu;
};

// to[row] = Σ over positions and k of from[position + row][k] · weight[position][k], for M rows and V vectors.
template <int M, int V>
void product(const float* from, int64_t row, const int64_t* positions, int count, int depth, const float* weight,
             float* to, int64_t to_row, const Ending& ending) {
  vec sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) sum[i][j] = ending.bias ? load(ending.bias + j * LANES) : vec{};
  for (int p = 0; p < count; p++) {
    const float* base[(M + 2) / 3];  // for each three rows, which addressing reaches with 0, 1 and 2 times `row`
#pragma GCC unroll 16
    for (int q = 0; q < (M + 2) / 3; q++) base[q] = from + positions[p] + 3 * q * row;
    for (int k = 0; k < depth; k++, weight += V * LANES) {
      vec w[V];
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) w[j] = load(weight + j * LANES);
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) {
        vec x = base[i / 3][k + (i % 3) * row] - vec{};
#pragma GCC unroll 2
        for (int j = 0; j < V; j++) sum[i][j] += x * w[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) {
      vec y = sum[i][j];
      const int left = ending.channels - j * LANES;
      if (ending.residual && left > 0) y += load(ending.residual + i * ending.residual_distance + j * LANES);
      if (ending.relu) y = rectified(y);
      if (left > 0) store(to + i * to_row + j * LANES, y, left);
    }
}

template <int V, int M = ROWS>
void product_of(int rows, const float* from, int64_t row, const int64_t* positions, int count, int depth,
                const float* weight, float* to, int64_t to_row, const Ending& ending) {
  if (rows == M) return product<M, V>(from, row, positions, count, depth, weight, to, to_row, ending);
  if constexpr (M > 1) product_of<V, M - 1>(rows, from, row, positions, count, depth, weight, to, to_row, ending);
}

// Calls use(first output channel, vectors) for the panels of a group.
template <class Use>
void panels(const Step& s, int group, Use use) {
  const int number = (s.out_channels + PANEL - 1) / PANEL;
  for (int p = group * number / s.groups; p < (group + 1) * number / s.groups; p++) {
    const int first = p * PANEL;
    use(first, s.out_channels - first > LANES ? 2 : 1);
  }
}

inline int64_t share(int64_t all, int64_t part, int64_t parts) { return all * part / parts; }

// A convolution without padding. Lines of pixels with one distance are cut into blocks of at most ROWS.
void convolution(const Step& s, int chunk, int group) {
  const bool dense = s.kernel_height == 1 && s.kernel_width == 1 && s.stride_height == 1 && s.stride_width == 1;
  const int64_t lines = dense ? 1 : int64_t(s.images) * s.out_height;
  const int64_t length = dense ? int64_t(s.images) * s.height * s.width : s.out_width;
  const int64_t blocks = (length + ROWS - 1) / ROWS;
  // The taps of a row are one stretch of memory if nothing lies between the pixels.
  const bool whole = s.distance == s.channels;
  const int count = s.kernel_height * (whole ? 1 : s.kernel_width);
  const int depth = s.channels * (whole ? s.kernel_width : 1);
  int64_t positions[MOST_TAPS];
  for (int p = 0; p < count; p++)
    positions[p] = whole ? int64_t(p) * s.width * s.distance
                         : (int64_t(p / s.kernel_width) * s.width + p % s.kernel_width) * s.distance;
  panels(s, group, [&](int first, int vectors) {
    const float* weight = s.weight + int64_t(first) * count * depth;
    for (int64_t b = share(lines * blocks, chunk, s.chunks); b < share(lines * blocks, chunk + 1, s.chunks); b++) {
      const int64_t line = b / blocks, begin = share(length, b % blocks, blocks);
      const int rows = share(length, b % blocks + 1, blocks) - begin;
      const int64_t image = line / s.out_height, y = line % s.out_height;
      const int64_t pixel = dense ? begin : (image * s.height + y * s.stride_height) * s.width + begin * s.stride_width;
      const int64_t out = line * length + begin;
      const Ending ending{s.bias + first, s.residual ? s.residual + out * s.residual_distance + first : nullptr,
                          s.residual_distance, s.out_channels - first, bool(s.relu)};
      (vectors == 2 ? product_of<2> : product_of<1>)(rows, s.in + pixel * s.distance, s.stride_width * s.distance,
                                                     positions, count, depth, weight,
                                                     s.out + out * s.out_distance + first, s.out_distance, ending);
    }
  });
}

// A side of a tile: M outputs at stride S of a filter of R taps. At stride 2 the even inputs meet the first and the last
// of three taps, as in F(M, 2), and every odd input the middle one; so each output has an odd input as a point of its own.
template <int M, int R, int S>
struct Side {
  static constexpr int COUNT = S == 1 ? M + R - 1 : 2 * M + 1;  // of inputs, and of points
  static constexpr int WEIGHTS = S == 1 ? COUNT : M + 2;        // of points whose weights differ
  static constexpr int weights(int point) { return point < WEIGHTS ? point : WEIGHTS - 1; }
};

// y + Σ over i of row[i] · get(i), without the products that are zero.
template <int COUNT, class Get>
inline vec weighted(const float (&row)[COUNT], Get get, vec y = vec{}) {
#pragma GCC unroll 8
  for (int i = 0; i < COUNT; i++)
    if (row[i] != 0) y += get(i) * row[i];
  return y;
}

// Bᵀ d along one side: get(i) → put(j, value). Rows for p and -p share what even and odd inputs give.
template <int M, int R, int S, class Get, class Put>
inline void to_points(Get get, Put put) {
  constexpr int A = Side<M, R, S>::COUNT;
  if constexpr (S == 2) {
    vec d[M + 1];
#pragma GCC unroll 8
    for (int i = 0; i <= M; i++) d[i] = get(2 * i);
#pragma GCC unroll 8
    for (int j = 0; j <= M; j++) put(j, weighted(Transform<M, 2>::BT[j], [&](int i) { return d[i]; }));
#pragma GCC unroll 8
    for (int j = 0; j < M; j++) put(M + 1 + j, get(2 * j + 1));
  } else {
    using T = Transform<M, R>;
    vec d[A];
#pragma GCC unroll 16
    for (int i = 0; i < A; i++) d[i] = get(i);
#pragma GCC unroll 16
    for (int j = 0; j < A; j += j == 0 ? 1 : 2) {
      vec even{}, odd{};
#pragma GCC unroll 16
      for (int i = 0; i < A; i++)
        if (T::BT[j][i] != 0) (i % 2 ? odd : even) += d[i] * T::BT[j][i];
      if (j == 0) {
        put(j, even);
      } else if (j == A - 1) {
        put(j, odd);
      } else {
        put(j, even + odd);
        put(j + 1, even - odd);
      }
    }
  }
}

// Aᵀ of the products along one side: get(j) → put(i, value).
template <int M, int R, int S, class Get, class Put>
inline void from_points(Get get, Put put) {
  constexpr int A = Side<M, R, S>::COUNT;
  if constexpr (S == 2) {
    vec d[M + 1];
#pragma GCC unroll 8
    for (int j = 0; j <= M; j++) d[j] = get(j);
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
      put(i, weighted(Transform<M, 2>::AT[i], [&](int j) { return d[j]; }, get(M + 1 + i)));
  } else {
    using T = Transform<M, R>;
    vec sum[A / 2], difference[A / 2];
#pragma GCC unroll 8
    for (int j = 1; j < A - 1; j += 2) {
      const vec plus = get(j), minus = get(j + 1);
      sum[j / 2] = plus + minus;
      difference[j / 2] = plus - minus;
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
      vec y = i == 0 ? get(0) : i == M - 1 ? get(A - 1) : vec{};
#pragma GCC unroll 8
      for (int j = 1; j < A - 1; j += 2) y += (i % 2 ? difference[j / 2] : sum[j / 2]) * T::AT[i][j];
      put(i, y);
    }
  }
}

// A y along one side, the transpose of `from_points` at stride 1: outputs get(i) → put(j, value).
template <int M, int R, class Get, class Put>
inline void outputs_to_points(Get get, Put put) {
  using T = Transform<M, R>;
  constexpr int A = M + R - 1;
  vec y[M];
#pragma GCC unroll 8
  for (int i = 0; i < M; i++) y[i] = get(i);
  put(0, y[0]);
#pragma GCC unroll 8
  for (int j = 1; j < A - 1; j += 2) {
    vec even{}, odd{};
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) (i % 2 ? odd : even) += y[i] * T::AT[i][j];
    put(j, even + odd);
    put(j + 1, even - odd);
  }
  put(A - 1, y[M - 1]);
}

// Where a tile of MH × MW outputs is.
struct Place {
  int64_t image;
  int y, x;
};

inline Place place(const Step& s, int64_t tile, int mh, int mw) {
  const int across = (s.out_width + mw - 1) / mw, down = (s.out_height + mh - 1) / mh;
  const int64_t row = tile / across;
  return {row / down, int(row % down) * mh, int(tile % across) * mw};
}

// A window of `rows` × `columns` pixels whose first is at (y, x): where it begins, and the distances of rows and pixels.
// One that reaches out of the image is copied into `patch`, with zeros around the image.
struct Window {
  const float* from;
  int64_t row, step;
};

inline Window window(const float* image, int height, int width, int channels, int64_t distance, int y, int x, int rows,
                     int columns, float* patch) {
  const float* from = image + (int64_t(y) * width + x) * distance;
  const int64_t row = width * distance;
  if (y >= 0 && x >= 0 && y + rows <= height && x + columns <= width) return {from, row, distance};
  const int depth = (channels + LANES - 1) / LANES * LANES;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      const bool inside = y + i >= 0 && y + i < height && x + j >= 0 && x + j < width;
      std::memcpy(patch + (i * columns + j) * depth, inside ? from + i * row + j * distance : ZEROS,
                  channels * sizeof(float));
    }
  return {patch, int64_t(columns) * depth, depth};
}

// Both sides of a transform, from values get(i, j) of ROWS_IN rows to values put(i, j, value) of COLUMNS columns: each row
// by `across`, then each column by `down`. A side of one stays as it is.
template <int ROWS_IN, int COLUMNS, class Down, class Across, class Get, class Put>
inline void on_both_sides(Down down, Across across, Get get, Put put) {
  if constexpr (ROWS_IN == 1) {
    across([&](int j) { return get(0, j); }, [&](int j, vec v) { put(0, j, v); });
  } else if constexpr (COLUMNS == 1) {
    down([&](int i) { return get(i, 0); }, [&](int i, vec v) { put(i, 0, v); });
  } else {
    vec half[ROWS_IN * COLUMNS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS_IN; i++)
      across([&](int j) { return get(i, j); }, [&](int j, vec v) { half[i * COLUMNS + j] = v; });
#pragma GCC unroll 8
    for (int j = 0; j < COLUMNS; j++)
      down([&](int i) { return half[i * COLUMNS + j]; }, [&](int i, vec v) { put(i, j, v); });
  }
}

// The inputs of a tile at all points: to[point * distance + channel].
template <int MH, int RH, int MW, int RW, int S>
void tile_inputs(const Step& s, int64_t tile, float* patch, float* to, int64_t distance) {
  constexpr int AH = Side<MH, RH, S>::COUNT, AW = Side<MW, RW, S>::COUNT;
  const Place at = place(s, tile, MH, MW);
  const Window w = window(s.in + at.image * s.height * s.width * s.distance, s.height, s.width, s.channels, s.distance,
                          at.y * S - s.top, at.x * S - s.left, AH, AW, patch);
  for (int c = 0; c < s.channels; c += LANES)
    on_both_sides<AH, AW>(
        [](auto get, auto put) { to_points<MH, RH, S>(get, put); },
        [](auto get, auto put) { to_points<MW, RW, S>(get, put); },
        [&](int i, int j) { return load(w.from + i * w.row + j * w.step + c); },
        [&](int i, int j, vec value) { *reinterpret_cast<unaligned_vec*>(to + (i * AW + j) * distance + c) = value; });
}

// A convolution by tiles of MH × MW outputs. A tile's values at all points lie beside one another, both the
// inputs' and the products'; the distance between tiles is odd in lines of cache, so that rows do not share places there.
template <int MH, int RH, int MW, int RW, int S>
void winograd(const Step& s, int chunk, int group, float* scratch) {
  using Down = Side<MH, RH, S>;
  using Across = Side<MW, RW, S>;
  constexpr int AH = Down::COUNT, AW = Across::COUNT, POINTS = AH * AW, WEIGHTS = Down::WEIGHTS * Across::WEIGHTS;
  const int across = (s.out_width + MW - 1) / MW, down = (s.out_height + MH - 1) / MH;
  const int64_t all = int64_t(s.images) * down * across, first_tile = share(all, chunk, s.chunks);
  const int tiles = share(all, chunk + 1, s.chunks) - first_tile;
  const int depth = (s.channels + LANES - 1) / LANES * LANES;
  const int64_t in_tile = int64_t(POINTS) * depth + 16, out_tile = POINTS * PANEL + 16;
  float *inputs = scratch, *products = inputs + tiles * in_tile, *patch = products + tiles * out_tile;
  for (int t = 0; t < tiles; t++)
    tile_inputs<MH, RH, MW, RW, S>(s, first_tile + t, patch, inputs + t * in_tile, depth);
  const int64_t start = 0;
  const int blocks = (tiles + ROWS - 1) / ROWS;
  panels(s, group, [&](int first, int vectors) {
    const int wide = vectors * LANES;
    const float* weight = s.weight + int64_t(first) * WEIGHTS * s.channels;
    for (int p = 0; p < POINTS; p++) {
      const int64_t w = Down::weights(p / AW) * Across::WEIGHTS + Across::weights(p % AW);
      for (int b = 0; b < blocks; b++) {
        const int64_t begin = share(tiles, b, blocks);
        (vectors == 2 ? product_of<2> : product_of<1>)(
            share(tiles, b + 1, blocks) - begin, inputs + begin * in_tile + p * depth, in_tile, &start, 1, s.channels,
            weight + w * s.channels * wide, products + begin * out_tile + p * PANEL, out_tile,
            Ending{nullptr, nullptr, 0, wide, false});
      }
    }
    for (int t = 0; t < tiles; t++) {
      const Place at = place(s, first_tile + t, MH, MW);
      const int rows = std::min(MH, s.out_height - at.y), columns = std::min(MW, s.out_width - at.x);
      for (int j = 0; j < vectors; j++) {
        const int channel = first + j * LANES, channels = std::min(LANES, s.out_channels - channel);
        const vec bias = load(s.bias + channel);
        float* out = s.out + ((at.image * s.out_height + at.y) * s.out_width + at.x) * s.out_distance + channel;
        const bool whole = rows == MH && columns == MW && channels == LANES;
        float* to = whole ? out : patch;
        const int64_t row = whole ? s.out_width * s.out_distance : MW * LANES, step = whole ? s.out_distance : LANES;
        const float* from = products + t * out_tile + j * LANES;
        on_both_sides<AH, MW>(
            [](auto get, auto put) { from_points<MH, RH, S>(get, put); },
            [](auto get, auto put) { from_points<MW, RW, S>(get, put); },
            [&](int i, int k) { return *reinterpret_cast<const vec*>(from + (i * AW + k) * PANEL); },
            [&](int i, int k, vec y) {
              y += bias;
              store(to + i * row + k * step, s.relu ? rectified(y) : y, LANES);
            });
        for (int i = 0; i < rows && !whole; i++)
          for (int k = 0; k < columns; k++)
            store(out + (int64_t(i) * s.out_width + k) * s.out_distance, load(patch + i * row + k * step), channels);
      }
    }
  });
}

// One row of outputs of a pool. Pixels outside are left out; `count_padding`: they count in the average, as zeros.
template <bool AVERAGE>
void pool(const Step& s, int line) {
  const int64_t image = line / s.out_height;
  const int y = line % s.out_height * s.stride_height - s.top;
  const int above = std::max(y, 0), below = std::min(y + s.kernel_height, s.height);
  for (int ox = 0; ox < s.out_width; ox++) {
    const int x = ox * s.stride_width - s.left, left = std::max(x, 0), right = std::min(x + s.kernel_width, s.width);
    const int area = s.count_padding ? s.kernel_height * s.kernel_width : (below - above) * (right - left);
    const float* from = s.in + ((image * s.height + above) * s.width + left) * s.distance;
    float* to = s.out + (int64_t(line) * s.out_width + ox) * s.out_distance;
    for (int c = 0; c < s.channels; c += LANES) {
      vec value = AVERAGE ? vec{} : load(from + c);
      for (int i = 0; i < below - above; i++)
        for (int j = 0; j < right - left; j++) {
          const vec pixel = load(from + (int64_t(i) * s.width + j) * s.distance + c);
          value = AVERAGE ? value + pixel : larger(pixel, value);
        }
      if (AVERAGE) value = value / float(area) + load(s.bias + c);
      if (s.relu) value = rectified(value);
      store(to + c, value, s.channels - c);
    }
  }
}

// One row of the input, with pixels of zeros around it.
void pad(const Step& s, int line) {
  const int64_t image = line / s.out_height;
  const int y = line % s.out_height - s.top;
  for (int x = -s.left; x < s.out_width - s.left; x++) {
    const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
    const float* from = inside ? s.in + ((image * s.height + y) * s.width + x) * s.distance : ZEROS;
    float* to = s.out + (int64_t(line) * s.out_width + x + s.left) * s.out_distance;
    std::memcpy(to, from, s.channels * sizeof(float));
  }
}

// Local response norm across kernel_width channels, to the power of 3/4, of one row; `squares` is scratch.
void response_norm(const Step& s, int line, float* squares) {
  const float alpha = s.weight[0], k = s.weight[1];
  const int before = s.kernel_width / 2, depth = s.channels + s.kernel_width + LANES;
  std::fill(squares, squares + depth, 0.0f);
  for (int64_t pixel = int64_t(line) * s.width; pixel < int64_t(line + 1) * s.width; pixel++) {
    const float* from = s.in + pixel * s.distance;
    for (int c = 0; c < s.channels; c++) squares[before + c] = from[c] * from[c];
    for (int c = 0; c < s.channels; c += LANES) {
      vec sum{};
      for (int i = 0; i < s.kernel_width; i++) sum += load(squares + c + i);
      sum = sum * alpha + k;
      vec power;
      for (int i = 0; i < LANES; i++) power[i] = std::sqrt(sum[i]) * std::sqrt(std::sqrt(sum[i]));
      store(s.out + pixel * s.out_distance + c, load(from + c) / power, s.channels - c);
    }
  }
}

// to[i][o] (+)= Σ over t of a[t][i] · b[t][o], for M rows i and V vectors o; a and b have a tile in each row.
template <int M, int V>
void outer_product(const float* a, int64_t a_row, const float* b, int64_t b_row, int tiles, float* to, int64_t to_row,
                   bool more) {
  vec sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) sum[i][j] = more ? load(to + i * to_row + j * LANES) : vec{};
  for (int t = 0; t < tiles; t++, a += a_row, b += b_row) {
    vec w[V];
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) w[j] = load(b + j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      const vec x = a[i] - vec{};
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) sum[i][j] += x * w[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) store(to + i * to_row + j * LANES, sum[i][j], LANES);
}

template <int V, int M = ROWS>
void outer_product_of(int rows, const float* a, int64_t a_row, const float* b, int64_t b_row, int tiles, float* to,
                      int64_t to_row, bool more) {
  if (rows == M) return outer_product<M, V>(a, a_row, b, b_row, tiles, to, to_row, more);
  if constexpr (M > 1) outer_product_of<V, M - 1>(rows, a, a_row, b, b_row, tiles, to, to_row, more);
}

// A stretch of memory whose length is odd in lines of cache, so that the planes of points do not share places there.
inline int64_t plane(int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

// The gradient of the filters, of a convolution at stride 1 whose step has the gradient of its output in `residual`:
// Gᵀ (Σ over tiles of (Bᵀ d) (A y)ᵀ) G, with a plane of memory for each point. Chunks of tiles come one after another,
// so the sums have the same order with any number of threads, which share the tiles, then the points and channels.
template <int MH, int RH, int MW, int RW>
void filters_gradient(const Step& s, const Filters& f, float* memory, float* gradient) {
  constexpr int AH = MH + RH - 1, AW = MW + RW - 1, POINTS = AH * AW;
  const int across = (s.out_width + MW - 1) / MW, down = (s.out_height + MH - 1) / MH;
  const int64_t all = int64_t(s.images) * down * across, most = (all + s.chunks - 1) / s.chunks;
  const int64_t in_plane = plane(most * s.channels), out_plane = plane(most * s.out_channels);
  const int64_t sums_plane = plane(int64_t(s.channels) * s.out_channels);
  float *inputs = memory, *outputs = inputs + POINTS * in_plane, *sums = outputs + POINTS * out_plane;
  float* patch = sums + POINTS * sums_plane + omp_get_thread_num() * plane(POINTS * std::max(s.channels, s.out_channels));
  const int panels = (s.out_channels + PANEL - 1) / PANEL, blocks = (s.channels + ROWS - 1) / ROWS;
  for (int chunk = 0; chunk < s.chunks; chunk++) {
    const int64_t first = share(all, chunk, s.chunks);
    const int tiles = share(all, chunk + 1, s.chunks) - first;
#pragma omp for schedule(static)
    for (int t = 0; t < tiles; t++) {
      tile_inputs<MH, RH, MW, RW, 1>(s, first + t, patch, inputs + int64_t(t) * s.channels, in_plane);
      const Place at = place(s, first + t, MH, MW);
      const Window w = window(s.residual + at.image * s.out_height * s.out_width * s.out_channels, s.out_height,
                              s.out_width, s.out_channels, s.out_channels, at.y, at.x, MH, MW, patch);
      float* to = outputs + int64_t(t) * s.out_channels;
      for (int o = 0; o < s.out_channels; o += LANES)
        on_both_sides<MH, AW>(
            [](auto get, auto put) { outputs_to_points<MH, RH>(get, put); },
            [](auto get, auto put) { outputs_to_points<MW, RW>(get, put); },
            [&](int i, int j) { return load(w.from + i * w.row + j * w.step + o); },
            [&](int i, int j, vec value) { store(to + (i * AW + j) * out_plane + o, value, LANES); });
    }
#pragma omp for schedule(static)
    for (int task = 0; task < POINTS * panels; task++) {
      const int p = task / panels, o = task % panels * PANEL, vectors = s.out_channels - o > LANES ? 2 : 1;
      for (int b = 0; b < blocks; b++) {
        const int begin = share(s.channels, b, blocks), rows = share(s.channels, b + 1, blocks) - begin;
        (vectors == 2 ? outer_product_of<2> : outer_product_of<1>)(
            rows, inputs + p * in_plane + begin, s.channels, outputs + p * out_plane + o, s.out_channels, tiles,
            sums + p * sums_plane + int64_t(begin) * s.out_channels + o, s.out_channels, chunk > 0);
      }
    }
  }
#pragma omp for schedule(static)
  for (int i = 0; i < s.channels; i++)
    for (int o = 0; o < s.out_channels; o += LANES)
      for (int y = 0; y < RH; y++)
        for (int x = 0; x < RW; x++) {
          vec sum{};
          for (int a = 0; a < AH; a++)
            for (int b = 0; b < AW; b++)
              if (const float g = f.down[a * RH + y] * f.across[b * RW + x]; g != 0)
                sum += load(sums + (a * AW + b) * sums_plane + int64_t(i) * s.out_channels + o) * g;
          for (int lane = 0; lane < LANES; lane++)
            gradient[(o + lane) * f.out_stride + i * f.stride + y * f.row + x * f.step] = sum[lane];
        }
}

// The filters of one panel and of `LANES` input channels from `begin` on, at all points, in double precision.
void pack_block(const Filters& f, int panel, int begin, float* packed) {
  const int first = panel * PANEL, wide = f.out_channels - first > LANES ? PANEL : LANES;
  const int some = std::min(wide, f.out_channels - first), depth = std::min(LANES, f.channels - begin);
  alignas(64) float taken[MOST_TAPS][LANES][PANEL];  // by tap, input channel and output channel
  for (int tap = 0; tap < f.height * f.width; tap++)
    for (int o = 0; o < wide; o++) {
      const float* from = f.in + (first + o) * f.out_stride + begin * f.stride + tap / f.width * f.row + tap % f.width * f.step;
      for (int i = 0; i < depth; i++) taken[tap][i][o] = o < some ? from[i * f.stride] : 0.0f;
    }
  for (int i = 0; i < depth; i++)
    for (int v = 0; v < wide; v += LANES)
      for (int a = 0; a < f.down_rows; a++) {
        double_vec half[MOST_TAPS];
        for (int x = 0; x < f.width; x++) {
          half[x] = double_vec{};
          for (int y = 0; y < f.height; y++)
            if (const double g = f.down[a * f.height + y]; g != 0)
              half[x] += __builtin_convertvector(load(&taken[y * f.width + x][i][v]), double_vec) * g;
        }
        for (int b = 0; b < f.across_rows; b++) {
          double_vec sum{};
          for (int x = 0; x < f.width; x++)
            if (const double g = f.across[b * f.width + x]; g != 0) sum += half[x] * g;
          const int64_t point = a * f.across_rows + b;
          float* to = packed + (int64_t(first) * f.down_rows * f.across_rows) * f.channels;
          store(to + (point * f.channels + begin + i) * wide + v, __builtin_convertvector(sum, vec), LANES);
        }
      }
}

// Calls use(MH, RH, MW, RW, S), as types, for the kernel of a step.
template <class Use>
void dispatch(const Step& s, Use use) {
  const auto is = [&](int mh, int rh, int mw, int rw, int stride) {
    return s.tile_height == mh && s.kernel_height == rh && s.tile_width == mw && s.kernel_width == rw &&
           s.stride_height == stride;
  };
#define TRY(MH, RH, MW, RW, S) \
  if (is(MH, RH, MW, RW, S)) return use.template operator()<MH, RH, MW, RW, S>();
  TRY(1, 1, 4, 3, 1) TRY(4, 3, 1, 1, 1) TRY(1, 1, 6, 3, 1) TRY(6, 3, 1, 1, 1) TRY(1, 1, 4, 7, 1) TRY(4, 7, 1, 1, 1)
  TRY(1, 1, 6, 7, 1) TRY(6, 7, 1, 1, 1) TRY(4, 3, 4, 3, 1) TRY(6, 3, 6, 3, 1) TRY(2, 5, 2, 5, 1) TRY(4, 5, 4, 5, 1)
  TRY(3, 3, 3, 3, 2) TRY(4, 3, 4, 3, 2) TRY(5, 3, 5, 3, 2)
#undef TRY
}

struct Forward {
  const Step& s;
  int chunk, group;
  float* scratch;
  template <int MH, int RH, int MW, int RW, int S>
  void operator()() const { winograd<MH, RH, MW, RW, S>(s, chunk, group, scratch); }
};

struct Gradient {
  const Step& s;
  const Filters& f;
  float *memory, *gradient;
  template <int MH, int RH, int MW, int RW, int S>
  void operator()() const {
    if constexpr (S == 1) filters_gradient<MH, RH, MW, RW>(s, f, memory, gradient);
  }
};

}  // namespace

extern "C" {

int32_t lanes() { return LANES; }
int32_t rows() { return ROWS; }
int32_t step_size() { return sizeof(Step); }
int32_t filters_size() { return sizeof(Filters); }
int32_t threads_of_openmp() { return omp_get_max_threads(); }

// Filters at all points (or taps) in the order of the products: by panels of output channels, in each by point, then
// input channel, then the channels of the panel.
void pack(const Filters* filters, float* packed, int32_t threads) {
  const int panels = (filters->out_channels + PANEL - 1) / PANEL, blocks = (filters->channels + LANES - 1) / LANES;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int task = 0; task < panels * blocks; task++)
    pack_block(*filters, task / blocks, task % blocks * LANES, packed);
}

// Floats that `gradient` needs.
int64_t gradient_memory(const Step* s, int32_t points, int64_t tiles, int32_t threads) {
  const int64_t most = (tiles + s->chunks - 1) / s->chunks;
  return points * (plane(most * s->channels) + plane(most * s->out_channels) +
                   plane(int64_t(s->channels) * s->out_channels)) +
         threads * plane(points * std::max(s->channels, s->out_channels));
}

// The gradient of the filters, into memory with their strides; see filters_gradient.
void gradient(const Step* s, const Filters* filters, float* memory, float* to, int32_t threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  dispatch(*s, Gradient{*s, *filters, memory, to});
}

// The steps, one after another, each shared by the threads. Every thread has `scratch_size` floats of its own.
void run(const Step* steps, int32_t count, int32_t threads, float* scratch, int64_t scratch_size) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    float* own = scratch + omp_get_thread_num() * scratch_size;
    for (int n = 0; n < count; n++) {
      const Step& s = steps[n];
#pragma omp for schedule(dynamic)
      for (int task = 0; task < s.chunks * s.groups; task++) {
        const int chunk = task / s.groups, group = task % s.groups;
        switch (s.kind) {
          case CONVOLUTION: convolution(s, chunk, group); break;
          case WINOGRAD: dispatch(s, Forward{s, chunk, group, own}); break;
          case MAX_POOL: pool<false>(s, chunk); break;
          case AVERAGE_POOL: pool<true>(s, chunk); break;
          case PAD: pad(s, chunk); break;
          case RESPONSE_NORM: response_norm(s, chunk, own); break;
        }
      }
    }
  }
}
}
