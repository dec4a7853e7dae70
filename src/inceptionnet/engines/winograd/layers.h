// The layers that are no convolutions: pools, padding and local response norm, a row at a time.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "steps.h"

namespace {

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

}  // namespace
