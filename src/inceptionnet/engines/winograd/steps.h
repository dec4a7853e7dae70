// What all kernels share: the vectors, and the step that says what to do.
//
// All vectors are GCC's vector extensions; they become AVX-512, AVX2 or whatever the compiler's flags allow.

#pragma once

#include <cstdint>
#include <cstring>

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

// Where a part begins, of `parts` that are as equal as they can be.
inline int64_t share(int64_t all, int64_t part, int64_t parts) { return all * part / parts; }

}  // namespace

enum Kind : int32_t { CONVOLUTION, WINOGRAD, MAX_POOL, AVERAGE_POOL, PAD, RESPONSE_NORM };

// A layer on all images; mirrored in library.py. Distances are in floats, between neighbouring pixels.
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
