// Products of matrices in registers, and the convolution that is one product for each tap.
//
// ROWS pixels (or tiles) by two vectors of output channels, which stay in registers over all taps and input channels.

#pragma once

#include "steps.h"

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

}  // namespace
