// Convolutions by Cook–Toom transforms (transforms.py): a block of tiles is transformed, multiplied at each point, and
// transformed back while it is in cache.

#pragma once

#include <algorithm>
#include <cstring>

#include "product.h"
#include "steps.h"
#include "transforms.h"  // written by transforms.py: Transform<m, r>

namespace {

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

}  // namespace
