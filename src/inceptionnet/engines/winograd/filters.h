// The filters of a convolution: their gradient, and their values in the order of the products.

#pragma once

#include <algorithm>
#include <omp.h>

#include "steps.h"
#include "winograd.h"

// Filters of a convolution, and the matrices G of each side, (rows, taps) in double precision; mirrored in library.py.
// Strides are in floats, along output channels, input channels, height and width; of a flipped filter some are negative.
struct Filters {
  int32_t out_channels, channels, height, width, down_rows, across_rows;
  int64_t out_stride, stride, row, step;
  const float* in;
  const double *down, *across;
};

namespace {

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

}  // namespace
